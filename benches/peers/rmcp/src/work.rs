//! What the tools do: benches/peers/README.md says it for all peers. Knows nothing of MCP.

use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Item {
    pub product_id: i64,
    pub quantity: i64,
}

/// One HTTP client and one multiplexed Redis connection, both made when they are first needed.
pub struct Work {
    server_type: &'static str,
    api_url: String,
    http: reqwest::Client,
    redis: OnceCell<ConnectionManager>,
}

pub fn fibonacci(n: u32) -> u64 {
    if n < 2 { n.into() } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

fn upper(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.to_uppercase()),
        Value::Array(items) => items.iter().map(upper).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), upper(member))).collect::<Map<_, _>>().into(),
        other => other.clone(),
    }
}

pub fn transformed(data: &Map<String, Value>) -> Value {
    let keys: Vec<&String> = data.keys().collect();
    json!({"original_keys": keys, "transformed_data": upper(&Value::Object(data.clone()))})
}

impl Work {
    pub fn new(server_type: &'static str) -> Self {
        let api_url = std::env::var("API_URL").unwrap_or_else(|_| "http://127.0.0.1:8100".into());
        let http = reqwest::Client::builder().tcp_nodelay(true).build().expect("an HTTP client");
        Self { server_type, api_url, http, redis: OnceCell::new() }
    }

    async fn redis(&self) -> Result<ConnectionManager, Failure> {
        let connection = self.redis.get_or_try_init(|| async {
            let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
            redis::Client::open(url)?.get_connection_manager().await
        });
        Ok(connection.await?.clone())
    }

    pub async fn fetch(&self, endpoint: &str) -> Result<Value, Failure> {
        let answer = self.http.get(endpoint).send().await?;
        let status = answer.status().as_u16();
        Ok(json!({"status": status, "data": answer.json::<Value>().await?}))
    }

    pub async fn search(&self, category: &str, min_price: f64, max_price: f64, limit: i64) -> Result<Value, Failure> {
        let mut redis = self.redis().await?;
        let query = [("category", category.to_string()), ("min_price", min_price.to_string()), ("max_price", max_price.to_string()), ("limit", limit.to_string())];
        let searched = async { Ok::<Value, Failure>(self.http.get(format!("{}/products/search", self.api_url)).query(&query).send().await?.json().await?) };
        let ranked = async { Ok::<Vec<String>, Failure>(redis.zrevrange("bench:popular", 0, 9).await?) };
        let (found, popular) = tokio::try_join!(searched, ranked)?;
        let ids: Vec<i64> = popular.iter().filter_map(|member| member.strip_prefix("product:")?.parse().ok()).collect();
        let products: Vec<Value> = found["products"].as_array().into_iter().flatten().map(|product| {
            let rank = ids.iter().position(|id| product["id"] == *id).map_or(0, |place| place + 1);
            json!({"id": product["id"], "sku": product["sku"], "name": product["name"], "price": product["price"], "rating": product["rating"], "popularity_rank": rank})
        }).collect();
        Ok(json!({"category": category, "total_found": found["total_found"], "products": products, "top_popular_ids": ids, "server_type": self.server_type}))
    }

    pub async fn cart(&self, user_id: &str) -> Result<Value, Failure> {
        let mut redis = self.redis().await?;
        let cart: std::collections::HashMap<String, String> = redis.hgetall(format!("bench:cart:{user_id}")).await?;
        let items: Value = serde_json::from_str(cart.get("items").ok_or("there is no such cart")?)?;
        let product = async { Ok::<Value, Failure>(self.http.get(format!("{}/products/{}", self.api_url, items[0]["product_id"])).send().await?.json().await?) };
        let history = async { Ok::<Vec<String>, Failure>(redis.lrange(format!("bench:history:{user_id}"), 0, 4).await?) };
        let (first_product, orders) = tokio::try_join!(product, history)?;
        let recent: Vec<Value> = orders.iter().map(|order| serde_json::from_str(order)).collect::<Result<_, _>>()?;
        let total: f64 = cart.get("total").map_or(Ok(0.0), |text| text.parse())?;
        Ok(json!({"user_id": user_id, "items": items, "first_product": first_product, "recent_history": recent, "total": total, "server_type": self.server_type}))
    }

    pub async fn checkout(&self, user_id: &str, items: &[Item]) -> Result<Value, Failure> {
        let redis = self.redis().await?;
        let (mut counters, mut history, mut popular) = (redis.clone(), redis.clone(), redis);
        let first = items.first().ok_or("a checkout has at least one item")?;
        let number: u64 = user_id.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let listed: Vec<Value> = items.iter().map(|item| json!({"product_id": item.product_id, "quantity": item.quantity})).collect();
        let body = json!({"user_id": user_id, "items": listed});
        let order = json!({"user_id": user_id, "items": body["items"]}).to_string();
        let priced = async { Ok::<Value, Failure>(self.http.post(format!("{}/cart/calculate", self.api_url)).json(&body).send().await?.json().await?) };
        let counted = async { Ok::<i64, Failure>(counters.incr(format!("bench:ratelimit:user-{:05}", number % 100), 1).await?) };
        let kept = async { Ok::<i64, Failure>(history.rpush(format!("bench:history:{user_id}"), order).await?) };
        let raised = async { Ok::<f64, Failure>(popular.zincr("bench:popular", format!("product:{}", first.product_id), 1).await?) };
        let (price, count, _, _) = tokio::try_join!(priced, counted, kept, raised)?;
        Ok(json!({"order_id": price["order_id"], "status": "confirmed", "total": price["total"], "items_count": items.len(), "rate_limit_count": count, "server_type": self.server_type}))
    }
}
