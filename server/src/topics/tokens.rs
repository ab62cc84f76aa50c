//! Names or patterns by their tokens: whom a pattern matches, and who matches a name, without comparing
//! all with one.
//!
//! Knows: tokens, and whose the texts are. Must not know: what a topic or an entry is.
//!
//! A tree, a token to a node: of names, which a pattern is led through, or of patterns, through which a
//! name is led. A `*` costs what is there at its place, a `>` what it matches. What is beyond
//! [`DEPTH_MAX`] tokens is one node, and compared, so that no name takes more than that many.

use hashbrown::HashTable;
use slab::Slab;
use uringcast_protocol::topic_name::tokens_match;

use crate::home::topic_hash;

/// Nodes of a text at most; a node is about 150 B.
const DEPTH_MAX: usize = 8;

/// Texts of tokens joined by `.`, each of one owner or more.
#[derive(Debug)]
pub(super) struct Tokens<T> {
    seed: u64,
    depth_max: usize,
    nodes: Slab<Node<T>>,
    /// Nodes by their parent and token.
    by_token: HashTable<u32>,
}

#[derive(Debug)]
struct Node<T> {
    /// The token, or at the last depth all the tokens that are left.
    token: Box<str>,
    /// Of the token and the parent.
    hash: u64,
    parent: u32,
    /// Where it is among its parent's children.
    place: u32,
    children: Vec<u32>,
    /// Whose the text is that ends here.
    owners: Vec<T>,
}

const ROOT: u32 = 0;

impl<T: Copy + Eq> Tokens<T> {
    /// None yet. `seed` is secret, as strangers choose tokens.
    pub(super) fn new(seed: u64) -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node {
            token: "".into(),
            hash: 0,
            parent: ROOT,
            place: 0,
            children: Vec::new(),
            owners: Vec::new(),
        });
        Self { seed, depth_max: DEPTH_MAX, nodes, by_token: HashTable::new() }
    }

    fn node(&self, key: u32) -> &Node<T> {
        &self.nodes[key as usize]
    }

    fn hash(&self, parent: u32, token: &str) -> u64 {
        topic_hash(self.seed.wrapping_add(u64::from(parent)), token)
    }

    fn child(&self, parent: u32, token: &str) -> Option<u32> {
        let hash = self.hash(parent, token);
        let is_it = |&key: &u32| {
            let node = self.node(key);
            node.parent == parent && &*node.token == token
        };
        self.by_token.find(hash, is_it).copied()
    }

    /// One more owner of a text.
    pub(super) fn insert(&mut self, text: &str, owner: T) {
        let mut at = ROOT;
        for token in text.splitn(self.depth_max, '.') {
            at = match self.child(at, token) {
                Some(child) => child,
                None => self.grow(at, token),
            };
        }
        self.nodes[at as usize].owners.push(owner);
    }

    fn grow(&mut self, parent: u32, token: &str) -> u32 {
        let hash = self.hash(parent, token);
        let key = self.nodes.vacant_key() as u32;
        let siblings = &mut self.nodes[parent as usize].children;
        let place = siblings.len() as u32;
        siblings.push(key);
        self.nodes.insert(Node {
            token: token.into(),
            hash,
            parent,
            place,
            children: Vec::new(),
            owners: Vec::new(),
        });
        let nodes = &self.nodes;
        self.by_token.insert_unique(hash, key, |&key| nodes[key as usize].hash);
        key
    }

    /// An owner of a text less; nodes that lead nowhere go.
    pub(super) fn remove(&mut self, text: &str, owner: T) {
        let mut at = ROOT;
        for token in text.splitn(self.depth_max, '.') {
            let Some(child) = self.child(at, token) else { return };
            at = child;
        }
        let owners = &mut self.nodes[at as usize].owners;
        if let Some(place) = owners.iter().position(|&other| other == owner) {
            owners.swap_remove(place);
        }
        while at != ROOT && self.node(at).children.is_empty() && self.node(at).owners.is_empty() {
            at = self.cut(at);
        }
    }

    /// Takes a node away; returns its parent.
    fn cut(&mut self, key: u32) -> u32 {
        let node = self.nodes.remove(key as usize);
        let siblings = &mut self.nodes[node.parent as usize].children;
        siblings.swap_remove(node.place as usize);
        if let Some(&moved) = siblings.get(node.place as usize) {
            self.nodes[moved as usize].place = node.place;
        }
        if let Ok(found) = self.by_token.find_entry(node.hash, |&other| other == key) {
            found.remove();
        }
        node.parent
    }

    /// Tells the owners of all names that a pattern matches. Returns how many nodes were looked at.
    pub(super) fn matched_by(&self, pattern: &str, mut tell: impl FnMut(T)) -> usize {
        let mut looked_at = 0;
        let mut ways = vec![(ROOT, Some(pattern), self.depth_max)];
        while let Some((at, rest, depth)) = ways.pop() {
            looked_at += 1;
            let node = self.node(at);
            let Some(rest) = rest else {
                node.owners.iter().copied().for_each(&mut tell);
                continue;
            };
            let (token, after) = first(rest);
            if token == ">" {
                let mut below = node.children.clone();
                while let Some(key) = below.pop() {
                    looked_at += 1;
                    let node = self.node(key);
                    node.owners.iter().copied().for_each(&mut tell);
                    below.extend_from_slice(&node.children);
                }
            } else if depth == 1 {
                looked_at += node.children.len();
                let matches = |&&key: &&u32| tokens_match(rest, &self.node(key).token);
                ways.extend(node.children.iter().filter(matches).map(|&key| (key, None, 0)));
            } else if token == "*" {
                ways.extend(node.children.iter().map(|&child| (child, after, depth - 1)));
            } else {
                ways.extend(self.child(at, token).map(|child| (child, after, depth - 1)));
            }
        }
        looked_at
    }

    /// Tells the owners of all patterns that match a name. Returns how many nodes were looked at.
    pub(super) fn matching(&self, name: &str, mut tell: impl FnMut(T)) -> usize {
        let mut looked_at = 0;
        let mut ways = vec![(ROOT, Some(name), self.depth_max)];
        while let Some((at, rest, depth)) = ways.pop() {
            looked_at += 1;
            let node = self.node(at);
            let Some(rest) = rest else {
                node.owners.iter().copied().for_each(&mut tell);
                continue;
            };
            if depth == 1 {
                looked_at += node.children.len();
                let matches = |&&key: &&u32| tokens_match(&self.node(key).token, rest);
                ways.extend(node.children.iter().filter(matches).map(|&key| (key, None, 0)));
                continue;
            }
            if node.children.is_empty() {
                continue;
            }
            if let Some(all) = self.child(at, ">") {
                self.node(all).owners.iter().copied().for_each(&mut tell);
            }
            let (token, after) = first(rest);
            ways.extend(self.child(at, "*").map(|child| (child, after, depth - 1)));
            ways.extend(self.child(at, token).map(|child| (child, after, depth - 1)));
        }
        looked_at
    }
}

/// The first token, and what comes after it.
fn first(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((token, rest)) => (token, Some(rest)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use uringcast_protocol::topic_name::Pattern;

    use super::*;

    fn matched_by(names: &Tokens<usize>, pattern: &str) -> Vec<usize> {
        let mut found = Vec::new();
        names.matched_by(pattern, |owner| found.push(owner));
        found.sort_unstable();
        found
    }

    fn matching(patterns: &Tokens<usize>, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        patterns.matching(name, |owner| found.push(owner));
        found.sort_unstable();
        found
    }

    fn name() -> impl Strategy<Value = String> {
        vec(select(vec!["a", "b", "ab"]), 1..5).prop_map(|tokens| tokens.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        (vec(select(vec!["a", "b", "ab", "*", "*"]), 0..4), any::<bool>()).prop_map(
            |(mut tokens, all)| {
                if all || tokens.is_empty() {
                    tokens.push(">");
                }
                tokens.join(".")
            },
        )
    }

    proptest! {
        #[test]
        fn as_comparing_each_with_each(
            names in vec(name(), 0..20),
            patterns in vec(pattern(), 0..20),
            gone in vec((any::<bool>(), 0..20_usize), 0..20),
            depth_max in 1..6_usize,
        ) {
            let (mut by_name, mut by_pattern) = (Tokens::new(7), Tokens::new(8));
            (by_name.depth_max, by_pattern.depth_max) = (depth_max, depth_max);
            let mut live_names: Vec<_> = names.iter().map(Some).collect();
            let mut live_patterns: Vec<_> = patterns.iter().map(Some).collect();
            names.iter().enumerate().for_each(|(owner, name)| by_name.insert(name, owner));
            patterns.iter().enumerate().for_each(|(owner, text)| by_pattern.insert(text, owner));
            for (is_name, owner) in gone {
                let (live, tree) = if is_name {
                    (&mut live_names, &mut by_name)
                } else {
                    (&mut live_patterns, &mut by_pattern)
                };
                if let Some(text) = live.get_mut(owner).and_then(Option::take) {
                    tree.remove(text, owner);
                }
            }
            let matches = |pattern: &str, name: &str| {
                Pattern::parse(pattern).expect("a valid pattern").matches(name)
            };
            for pattern in &patterns {
                let wanted: Vec<_> = (0..names.len())
                    .filter(|&owner| live_names[owner].is_some_and(|name| matches(pattern, name)))
                    .collect();
                prop_assert_eq!(matched_by(&by_name, pattern), wanted, "{}", pattern);
            }
            for name in &names {
                let wanted: Vec<_> = (0..patterns.len())
                    .filter(|&owner| live_patterns[owner].is_some_and(|text| matches(text, name)))
                    .collect();
                prop_assert_eq!(matching(&by_pattern, name), wanted, "{}", name);
            }
            for (owner, name) in live_names.into_iter().enumerate() {
                name.into_iter().for_each(|name| by_name.remove(name, owner));
            }
            prop_assert_eq!((by_name.nodes.len(), by_name.by_token.len()), (1, 0));
        }
    }

    #[test]
    fn what_a_pattern_does_not_match_costs_nothing() {
        let mut names = Tokens::new(1);
        for i in 0..10_000 {
            names.insert(&format!("md.{i}.trade"), i);
        }
        names.insert("fx.EUR.trade", 10_000);
        let mut found = Vec::new();
        assert!(names.matched_by("fx.*.trade", |owner| found.push(owner)) <= 4);
        assert_eq!(found, [10_000]);
        assert!(names.matched_by("md.77.>", |owner| found.push(owner)) <= 4);
        assert_eq!(found, [10_000, 77]);
    }

    #[test]
    fn no_name_takes_more_than_so_many_nodes() {
        let mut names = Tokens::new(1);
        let long = ["a"; 128].join(".");
        names.insert(&long, 1);
        assert_eq!(names.nodes.len(), 1 + DEPTH_MAX);
        assert_eq!(matched_by(&names, &["*"; 128].join(".")), [1]);
        assert_eq!(matched_by(&names, &["*"; 127].join(".")), [0_usize; 0]);
        names.remove(&long, 1);
        assert_eq!(names.nodes.len(), 1);
    }

    #[test]
    fn who_is_there_twice_goes_once_at_a_time() {
        let mut patterns = Tokens::new(1);
        patterns.insert("a.*", 1);
        patterns.insert("a.*", 2);
        patterns.remove("a.*", 1);
        assert_eq!(matching(&patterns, "a.b"), [2]);
        patterns.remove("a.*", 3);
        patterns.remove("a.b", 2);
        assert_eq!(matching(&patterns, "a.b"), [2]);
        patterns.remove("a.*", 2);
        assert_eq!(matching(&patterns, "a.b"), [0_usize; 0]);
    }
}
