//! One publisher's publication as it goes out: rendered once, stamped each time.
//!
//! Knows: where the stamp is in it, messages and requests. Must not know: when it is due.

use uringcast_protocol::Opcode;
use uringcast_protocol::writer::write_message;

use crate::dial::Header;
use crate::plan::Group;
use crate::stamp::{DIGITS, DIGITS_OFFSET, Stamp, template};
use crate::template::Template;

/// A publication, all but its stamp.
#[derive(Debug)]
pub(crate) struct Payload {
    bytes: Vec<u8>,
    digits_offset: usize,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// A message of WebSocket, to be framed and masked.
    Message(Opcode),
    /// A request of HTTP, head and body.
    Request,
}

impl Payload {
    /// A message of WebSocket whose payload has `bytes` before the template is put around it.
    pub(crate) fn message(bytes: usize, wrap: Option<&Template>, opcode: Opcode) -> Self {
        let (bytes, digits_offset) = render(bytes, wrap);
        Self { bytes, digits_offset, form: Form::Message(opcode) }
    }

    /// A POST of the same to the group's path, from the connection with this number.
    pub(crate) fn post(
        bytes: usize,
        wrap: Option<&Template>,
        opcode: Opcode,
        group: &Group,
        number: u32,
    ) -> Self {
        let (body, body_digits) = render(bytes, wrap);
        let mut head = format!("POST {} HTTP/1.1\r\n", group.path_of(number));
        let headers = group.dial.headers_of(number);
        let has = |name: &str| headers.iter().any(|header| header.is(name));
        let mut line = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        if !has("host") {
            line("Host", &group.host);
        }
        if !has("content-type") {
            let binary = opcode == Opcode::Binary;
            let kind = if binary { "application/octet-stream" } else { "application/json" };
            line("Content-Type", kind);
        }
        for Header { name, value } in &headers {
            line(name, value);
        }
        line("Content-Length", &body.len().to_string());
        head.push_str("\r\n");
        let digits_offset = head.len() + body_digits;
        let bytes = [head.into_bytes(), body].concat();
        Self { bytes, digits_offset, form: Form::Request }
    }

    /// Appends it to `out` with this stamp.
    #[inline]
    pub(crate) fn write(&mut self, stamp: &Stamp, mask: [u8; 4], out: &mut Vec<u8>) {
        stamp.write(&mut self.bytes[self.digits_offset..self.digits_offset + DIGITS]);
        match self.form {
            Form::Message(opcode) => write_message(out, opcode, &self.bytes, Some(mask)),
            Form::Request => out.extend_from_slice(&self.bytes),
        }
    }
}

fn render(bytes: usize, wrap: Option<&Template>) -> (Vec<u8>, usize) {
    let payload = template(bytes);
    match wrap {
        Some(wrap) => wrap.render(&payload),
        None => (payload, DIGITS_OFFSET),
    }
}
