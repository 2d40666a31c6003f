//! The peers' server with turbomcp: `peer stdio` or `peer http PORT`.

#[path = "../../rmcp/src/work.rs"]
mod work;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use turbomcp::prelude::*;
use work::{Failure, Item, Work};

#[derive(Clone)]
struct Peer(Arc<Work>);

fn told(value: Result<Value, Failure>) -> McpResult<String> {
    value.map(|value| value.to_string()).map_err(|failure| McpError::internal(failure.to_string()))
}

#[turbomcp::server(name = "peer", version = "1.0.0")]
impl Peer {
    /// Gives the text back.
    #[tool]
    async fn echo(&self, text: String) -> McpResult<String> {
        Ok(text)
    }

    /// The nth Fibonacci number, naively.
    #[tool]
    async fn calculate_fibonacci(&self, n: u32) -> McpResult<String> {
        if n > 40 {
            return Err(McpError::invalid_params("n is at most 40"));
        }
        told(Ok(json!({"result": work::fibonacci(n)})))
    }

    /// What an HTTP endpoint says.
    #[tool]
    async fn fetch_external_data(&self, endpoint: String) -> McpResult<String> {
        told(self.0.fetch(&endpoint).await)
    }

    /// The strings of an object in upper case.
    #[tool]
    async fn process_json_data(&self, data: Map<String, Value>) -> McpResult<String> {
        told(Ok(work::transformed(&data)))
    }

    /// Waits as a database would.
    #[tool]
    async fn simulate_database_query(&self, query: String, delay_ms: u64) -> McpResult<String> {
        tokio::time::sleep(Duration::from_millis(delay_ms.min(5000))).await;
        told(Ok(json!({"query": query, "delay_ms": delay_ms, "rows": 1})))
    }

    /// Products of a category and a price, with their popularity.
    #[tool]
    async fn search_products(&self, category: String, min_price: f64, max_price: f64, limit: i64) -> McpResult<String> {
        told(self.0.search(&category, min_price, max_price, limit).await)
    }

    /// A user's cart and recent orders.
    #[tool]
    async fn get_user_cart(&self, user_id: String) -> McpResult<String> {
        told(self.0.cart(&user_id).await)
    }

    /// Orders what is in the list.
    #[tool]
    async fn checkout(&self, user_id: String, items: Vec<Item>) -> McpResult<String> {
        told(self.0.checkout(&user_id, &items).await)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let peer = Peer(Arc::new(Work::new("turbomcp")));
    match std::env::args().nth(2) {
        None => peer.run_stdio().await?,
        Some(port) => peer.run_http(&format!("127.0.0.1:{port}")).await?,
    }
    Ok(())
}
