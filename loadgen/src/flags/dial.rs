//! What can be typed about how connections are begun, and about publishing to servers of others.
//!
//! Knows: names, help, what a header field may be. Must not know: what is done with them.

use std::path::PathBuf;

use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use uringcast_protocol::Opcode;

use crate::dial::{Greeting, Header};
use crate::escapes::unescape;
use crate::replies::Pairs;
use crate::template::Template;

/// What all commands share.
#[derive(Clone, Debug, Args)]
pub(crate) struct DialFlags {
    /// wss:// and https://: the certificates to trust, a CA's or the server's own, as PEM [default: those
    /// that the system trusts]
    #[arg(long, help_heading = HEADING, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// wss:// and https://: take any certificate
    #[arg(long, help_heading = HEADING)]
    pub(crate) insecure: bool,
    /// A header field to send with the upgrade; repeatable. In its value, as in URLs and in what --send
    /// sends, the letter n in braces stands for the connection's number
    #[arg(long, help_heading = HEADING, value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<Header>,
    /// Subprotocols to offer, in order of preference
    #[arg(long, help_heading = HEADING, value_delimiter = ',', value_name = "NAME,…", value_parser = token)]
    pub(crate) subprotocol: Vec<String>,
    #[command(flatten)]
    pub(crate) sends: Sends<false>,
    /// Subscribers have subscribed when a message with this in it has come; publishing waits for all of
    /// them. Without it publishing begins 0.2 s after the last one is connected
    #[arg(long, help_heading = HEADING, value_name = "TEXT")]
    pub(crate) ready: Option<String>,
    /// What to reply to messages with this in them that are no publications, such as a protocol's own
    /// pings; \r \n \t \0 \\ \xHH as in C; repeatable
    #[arg(long, help_heading = HEADING, num_args = 2, value_names = ["TEXT", "REPLY"])]
    pub(crate) answer: Vec<String>,
}

impl DialFlags {
    /// The pairs of --answer.
    pub(crate) fn replies(&self) -> Pairs {
        let (pairs, _) = self.answer.as_chunks::<2>();
        pairs.iter().map(|[word, reply]| (unescape(word), unescape(reply))).collect()
    }
}

/// How `fanout` and `publish` do that.
#[derive(Clone, Debug, Args)]
pub(crate) struct PublisherFlags {
    /// What to send for each publication: %s is the stamped payload of --size bytes, %j the same as a
    /// string of JSON, %b its length, %% a percent sign; \r \n \t \0 \\ \xHH as in C
    #[arg(long, help_heading = HEADING, value_name = "TEXT")]
    pub(crate) template: Option<Template>,
    /// http:// publishing: how many requests of a publisher may be without an answer; over 1 they are
    /// pipelined
    #[arg(long, help_heading = HEADING, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) pipeline: u16,
    /// A header field of publishers, in place of those of --header; repeatable
    #[arg(long, help_heading = HEADING, value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) publish_header: Vec<Header>,
    #[command(flatten)]
    pub(crate) sends: Sends<true>,
}

/// Messages to send after connecting, text and binary, in the order typed. By hand, because the order
/// of two flags' values is beyond clap's derive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sends<const BY_PUBLISHERS: bool> {
    pub(crate) greetings: Vec<Greeting>,
}

impl<const BY_PUBLISHERS: bool> Sends<BY_PUBLISHERS> {
    /// Names and helps of the flags for text and for binary messages.
    const FLAGS: [(&'static str, &'static str); 2] = match BY_PUBLISHERS {
        false => [
            (
                "send",
                "A text message to send after connecting, to subscribe for example; repeatable",
            ),
            (
                "send-binary",
                "The same as a binary message, with \\r \\n \\t \\0 \\\\ \\xHH as in C; both kinds are \
                 sent in the order given",
            ),
        ],
        true => [
            (
                "publish-send",
                "What publishers send after connecting, instead of --send; repeatable",
            ),
            ("publish-send-binary", "The same as a binary message, as with --send-binary"),
        ],
    };
}

impl<const BY_PUBLISHERS: bool> Args for Sends<BY_PUBLISHERS> {
    fn augment_args(command: Command) -> Command {
        let arg = |(name, help): (&'static str, &'static str)| {
            Arg::new(name)
                .long(name)
                .value_name("TEXT")
                .action(ArgAction::Append)
                .help(help)
                .help_heading(HEADING)
        };
        command.args(Self::FLAGS.map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const BY_PUBLISHERS: bool> FromArgMatches for Sends<BY_PUBLISHERS> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let [(text, _), (binary, _)] = Self::FLAGS;
        let of = |name: &str, opcode: Opcode| {
            let texts = matches.get_many::<String>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            let greeting = move |text: &String| Greeting {
                opcode,
                bytes: match opcode {
                    Opcode::Binary => unescape(text),
                    _ => text.clone().into_bytes(),
                },
            };
            places.zip(texts.map(greeting)).collect::<Vec<_>>()
        };
        let mut all = of(text, Opcode::Text);
        all.extend(of(binary, Opcode::Binary));
        all.sort_by_key(|(place, _)| *place);
        Ok(Self { greetings: all.into_iter().map(|(_, greeting)| greeting).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn header(text: &str) -> Result<Header, String> {
    let right = "should be 'Name: value'";
    let (name, value) = text.split_once(':').ok_or(right)?;
    let name = token(name.trim_end())?;
    let value = value.trim();
    if value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7F) {
        return Err("should have no control characters in its value".to_owned());
    }
    let is = |own: &str| name.eq_ignore_ascii_case(own);
    if let Some(own) = OWN.iter().find(|own| is(own)) {
        return Err(format!("should be another field: {own} is the load generator's own"));
    }
    if is("Sec-WebSocket-Protocol") {
        return Err("should be given with --subprotocol".to_owned());
    }
    Ok(Header { name, value: value.to_owned() })
}

/// RFC 9110 section 5.6.2.
fn token(text: &str) -> Result<String, String> {
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_right) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} should be letters, digits and !#$%&'*+-.^_`|~")),
    }
}

/// Where the help puts them.
const HEADING: &str = "Any server";
/// Fields that are not to be chosen.
const OWN: [&str; 7] = [
    "Connection",
    "Content-Length",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Transfer-Encoding",
    "Upgrade",
];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Both {
        #[command(flatten)]
        dial: DialFlags,
        #[command(flatten)]
        publisher: PublisherFlags,
    }

    #[test]
    fn messages_keep_their_order_over_both_flags() {
        let typed = [
            "x",
            "--send",
            "a",
            "--send-binary",
            r"b\r\n",
            "--publish-send",
            "p",
            "--send",
            r"c\n",
            "--publish-send-binary",
            r"\x00",
        ];
        let both = Both::try_parse_from(typed).expect("right");
        let shown = |greetings: &[Greeting]| {
            let of = |greeting: &Greeting| {
                format!("{:?} {}", greeting.opcode, greeting.bytes.escape_ascii())
            };
            greetings.iter().map(of).collect::<Vec<_>>()
        };
        let expected = ["Text a", r"Binary b\r\n", r"Text c\\n"];
        assert_eq!(shown(&both.dial.sends.greetings), expected);
        assert_eq!(shown(&both.publisher.sends.greetings), ["Text p", r"Binary \x00"]);
    }

    #[test]
    fn header_fields_are_checked() {
        let field = header("X-Token:  a b:{n} ").expect("right");
        assert_eq!((field.name.as_str(), field.value.as_str()), ("X-Token", "a b:{n}"));
        for wrong in
            ["x", "a b: c", ": x", "x: a\r\ny: b", "upgrade: h2c", "sec-websocket-protocol: a"]
        {
            assert!(header(wrong).is_err(), "{wrong}");
        }
        assert!(Both::try_parse_from(["x", "--ca", "f", "--insecure"]).is_err());
        assert!(Both::try_parse_from(["x", "--subprotocol", "a,b c"]).is_err());
    }
}
