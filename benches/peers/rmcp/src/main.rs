//! The peers' server with rmcp: `peer stdio` or `peer http PORT`.

mod work;

use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::transport::stdio;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler, ServiceExt, schemars, tool, tool_handler, tool_router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use work::{Failure, Item, Work};

#[derive(Deserialize, schemars::JsonSchema)]
struct Echo {
    text: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Fibonacci {
    n: u32,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Fetch {
    endpoint: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Process {
    data: Map<String, Value>,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Query {
    query: String,
    delay_ms: u64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Search {
    category: String,
    min_price: f64,
    max_price: f64,
    limit: i64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Cart {
    user_id: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Checkout {
    user_id: String,
    items: Vec<Item>,
}

#[derive(Clone)]
struct Peer(Arc<Work>);

type Answer = Result<CallToolResult, ErrorData>;

fn text(said: impl Into<String>) -> Answer {
    Ok(CallToolResult::success(vec![ContentBlock::text(said.into())]))
}

fn told(value: Result<Value, Failure>) -> Answer {
    match value {
        Ok(value) => text(value.to_string()),
        Err(failure) => Ok(CallToolResult::error(vec![ContentBlock::text(failure.to_string())])),
    }
}

#[tool_router]
impl Peer {
    #[tool(description = "Gives the text back.")]
    async fn echo(&self, Parameters(Echo { text: said }): Parameters<Echo>) -> Answer {
        text(said)
    }

    #[tool(description = "The nth Fibonacci number, naively.")]
    async fn calculate_fibonacci(&self, Parameters(Fibonacci { n }): Parameters<Fibonacci>) -> Answer {
        if n > 40 {
            return Err(ErrorData::invalid_params("n is at most 40", None));
        }
        told(Ok(json!({"result": work::fibonacci(n)})))
    }

    #[tool(description = "What an HTTP endpoint says.")]
    async fn fetch_external_data(&self, Parameters(Fetch { endpoint }): Parameters<Fetch>) -> Answer {
        told(self.0.fetch(&endpoint).await)
    }

    #[tool(description = "The strings of an object in upper case.")]
    async fn process_json_data(&self, Parameters(Process { data }): Parameters<Process>) -> Answer {
        told(Ok(work::transformed(&data)))
    }

    #[tool(description = "Waits as a database would.")]
    async fn simulate_database_query(&self, Parameters(Query { query, delay_ms }): Parameters<Query>) -> Answer {
        tokio::time::sleep(Duration::from_millis(delay_ms.min(5000))).await;
        told(Ok(json!({"query": query, "delay_ms": delay_ms, "rows": 1})))
    }

    #[tool(description = "Products of a category and a price, with their popularity.")]
    async fn search_products(&self, Parameters(s): Parameters<Search>) -> Answer {
        told(self.0.search(&s.category, s.min_price, s.max_price, s.limit).await)
    }

    #[tool(description = "A user's cart and recent orders.")]
    async fn get_user_cart(&self, Parameters(Cart { user_id }): Parameters<Cart>) -> Answer {
        told(self.0.cart(&user_id).await)
    }

    #[tool(description = "Orders what is in the list.")]
    async fn checkout(&self, Parameters(Checkout { user_id, items }): Parameters<Checkout>) -> Answer {
        told(self.0.checkout(&user_id, &items).await)
    }
}

#[tool_handler]
impl ServerHandler for Peer {}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let peer = Peer(Arc::new(Work::new("rmcp")));
    let Some(port) = std::env::args().nth(2) else {
        peer.serve(stdio()).await?.waiting().await?;
        return Ok(());
    };
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let service = StreamableHttpService::new(move || Ok(peer.clone()), Arc::new(LocalSessionManager::default()), config);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
