//! The contract of `NodeRegistry`.

use std::time::Duration;

use hanshu_core::ports::{InvokerNode, NodeRegistry};
use hanshu_store::SqlNodes;

use crate::databases::databases;

const LONG: Duration = Duration::from_secs(60);

fn node(id: &str, memory_mb: u64) -> InvokerNode {
    InvokerNode { id: id.parse().unwrap(), url: format!("http://{id}:9100"), memory_mb }
}

#[tokio::test]
async fn a_node_lives_as_long_as_its_lease() {
    for test in databases().await {
        let nodes = SqlNodes::new(test.db.clone());
        assert_eq!(nodes.live().await.unwrap(), vec![]);
        nodes.renew(&node("b", 512), LONG).await.unwrap();
        nodes.renew(&node("a", 512), LONG).await.unwrap();
        nodes.renew(&node("gone", 512), Duration::ZERO).await.unwrap();
        assert_eq!(nodes.live().await.unwrap(), [node("a", 512), node("b", 512)], "{}", test.name);
    }
}

#[tokio::test]
async fn a_renewal_changes_what_is_known_of_a_node() {
    for test in databases().await {
        let nodes = SqlNodes::new(test.db.clone());
        nodes.renew(&node("a", 512), Duration::ZERO).await.unwrap();
        nodes.renew(&node("a", 1024), LONG).await.unwrap();
        assert_eq!(nodes.live().await.unwrap(), [node("a", 1024)], "{}", test.name);
    }
}

#[tokio::test]
async fn a_node_that_leaves_is_gone_at_once() {
    for test in databases().await {
        let nodes = SqlNodes::new(test.db.clone());
        nodes.renew(&node("a", 512), LONG).await.unwrap();
        nodes.leave(&node("a", 512).id).await.unwrap();
        nodes.leave(&node("never-there", 1).id).await.unwrap();
        assert_eq!(nodes.live().await.unwrap(), vec![], "{}", test.name);
    }
}
