//! What a shard counts for each rule for topics, and so for each kind: never for each topic, of which
//! there may be a million.
//!
//! Knows: names and help texts. Must not know: rules' contents, or how figures are shown.

use super::Counter;

/// A rule's figure as the metrics page wants it.
#[derive(Clone, Copy, Debug)]
pub struct RuleDescription {
    /// Prometheus name.
    pub name: &'static str,
    /// Labels besides `rule` and `kind`, as they stand between the braces; `""` for none.
    pub labels: &'static str,
    /// Help text.
    pub help: &'static str,
}

macro_rules! rule_counters {
    ($($field:ident, $name:literal, $labels:literal, $help:literal;)*) => {
        /// One shard's figures of one rule. All of them only rise.
        #[derive(Debug, Default)]
        pub struct RuleCounters {
            $(#[doc = $help] pub $field: Counter,)*
        }

        /// The description of each figure, in the order of [`RuleCounters::values`].
        pub const RULE_FIGURES: &[RuleDescription] =
            &[$(RuleDescription { name: $name, labels: $labels, help: $help },)*];

        impl RuleCounters {
            /// All figures.
            pub fn values(&self) -> [u64; RULE_FIGURES.len()] {
                [$(self.$field.value(),)*]
            }
        }
    };
}

rule_counters! {
    conflated, "uringcast_rule_conflated_messages_total", "", "Messages of value topics that a lagging subscriber was not sent because a newer one stood for them, by rule.";
    lags, "uringcast_rule_lags_total", "", "Times a subscriber left its lane's log with messages of such topics unsent; once for each rule that had any.";
    gaps, "uringcast_rule_gaps_total", "", "Times a subscriber was told that messages are not coming, by rule.";
    closed_slow, "uringcast_rule_slow_closes_total", "", "Subscribers closed with 1013 because messages of such a topic could not be had any more.";
    resumed, "uringcast_rule_resumes_total", "recovered=\"true\"", "Topics resumed by subscribers, by rule and by whether everything missed could be sent.";
    resumed_not, "uringcast_rule_resumes_total", "recovered=\"false\"", "Topics resumed by subscribers, by rule and by whether everything missed could be sent.";
    snapshots_sent, "uringcast_rule_snapshots_total", "state=\"sent\"", "Snapshots by rule: sent to subscribers, taken from publishers, or wanted by a subscriber and not there.";
    snapshots_published, "uringcast_rule_snapshots_total", "state=\"published\"", "Snapshots by rule: sent to subscribers, taken from publishers, or wanted by a subscriber and not there.";
    snapshots_missing, "uringcast_rule_snapshots_total", "state=\"missing\"", "Snapshots by rule: sent to subscribers, taken from publishers, or wanted by a subscriber and not there.";
    stale, "uringcast_rule_stale_total", "", "Times a topic went stale: nothing was published for longer than its rule's stale_after; once for each shard that has subscribers.";
}
