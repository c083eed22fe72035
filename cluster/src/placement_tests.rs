//! Which node an invocation goes to, as tables.

use std::collections::{BTreeMap, BTreeSet};

use hanshu_core::{AsyncPolicy, FunctionConfig, Qualifier};

use super::*;

fn live(names: &[&str]) -> Vec<InvokerNode> {
    let node = |name: &&str| InvokerNode {
        id: name.parse().unwrap(),
        url: String::new(),
        memory_mb: 1024,
    };
    names.iter().map(node).collect()
}

fn revision(name: &str, concurrency: Option<u32>) -> Revision {
    let function = FunctionId { namespace: "a".parse().unwrap(), name: name.parse().unwrap() };
    let config = FunctionConfig {
        runtime: "python".parse().unwrap(),
        handler: "x.y".into(),
        memory_mb: 128,
        timeout: Duration::from_secs(3),
        init_timeout: Duration::from_secs(65),
        concurrency,
        network: None,
        async_policy: AsyncPolicy::default(),
        env: BTreeMap::new(),
    };
    let digest = Digest::from_bytes([u8::try_from(name.len()).unwrap(); 32]);
    Revision { function, version: Qualifier::Latest, code: digest.clone(), digest, config }
}

fn order(placement: &Placement, now: Instant, nodes: &[InvokerNode], of: &Revision) -> String {
    let order = placement.order(now, nodes, of);
    order.iter().map(|node| node.id.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_call_goes_to_the_node_with_the_fewest_calls_or_with_an_idle_sandbox() {
    let (now, nodes) = (Instant::now(), live(&["n1", "n2", "n3"]));
    let (hello, other) = (revision("hello", None), revision("others", None));
    let mut placement = Placement::default();
    let mut begin = |node: &InvokerNode, of: &Revision| placement.begin(now, &node.id, &of.digest);
    begin(&nodes[0], &hello);
    begin(&nodes[0], &other);
    begin(&nodes[1], &hello);
    assert_eq!(order(&placement, now, &nodes, &hello), "n3 n2 n1");
    placement.end(now, &nodes[0].id, &hello.digest);
    placement.begin(now, &nodes[0].id, &other.digest);
    // n1 is the busiest, but a sandbox of `hello` is idle there.
    assert_eq!(order(&placement, now, &nodes, &hello), "n1 n3 n2");
}

#[test]
fn a_node_that_failed_is_asked_last_for_a_while() {
    let (now, nodes) = (Instant::now(), live(&["n1", "n2"]));
    let mut placement = Placement::default();
    placement.leave_out(now, &nodes[0].id);
    let hello = revision("hello", None);
    assert_eq!(order(&placement, now, &nodes, &hello), "n2 n1");
    assert_eq!(order(&placement, now + LEFT_OUT, &nodes, &hello), "n1 n2");
    let limited = revision("hello", Some(1));
    let first = nodes[0].id.clone();
    assert_eq!(placement.order(now, &nodes, &limited).last().unwrap().id, first);
}

#[test]
fn a_function_with_a_limit_moves_only_when_its_node_goes() {
    let (now, nodes) = (Instant::now(), live(&["n1", "n2", "n3", "n4"]));
    let placement = Placement::default();
    let mut used = BTreeSet::new();
    for number in 0..40 {
        let limited = revision(&format!("f{number}"), Some(1));
        let all = placement.order(now, &nodes, &limited);
        used.insert(all[0].id.clone());
        for gone in &nodes {
            let left: Vec<_> = nodes.iter().filter(|node| *node != gone).cloned().collect();
            let next = placement.order(now, &left, &limited)[0];
            let expected = if all[0] == gone { all[1] } else { all[0] };
            assert_eq!(next, expected);
        }
    }
    assert_eq!(used.len(), nodes.len(), "functions are spread over all nodes");
}

#[test]
fn what_is_gone_is_forgotten() {
    let (now, nodes) = (Instant::now(), live(&["n1", "n2"]));
    let hello = revision("hello", None);
    let mut placement = Placement::default();
    for node in &nodes {
        placement.begin(now, &node.id, &hello.digest);
        placement.end(now, &node.id, &hello.digest);
    }
    placement.forget(now, &nodes[..1]);
    assert_eq!((placement.nodes.len(), placement.warm[&hello.digest].len()), (1, 1));
    placement.forget(now + WARM_KEPT, &nodes[..1]);
    assert!(placement.warm.is_empty());
}
