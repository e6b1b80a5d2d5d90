//! Lines from the server: the greeting and replies. JSON escapes line breaks, so a value is always one line.

use serde::Serialize;
use serde_json::Value;

use super::backend::Refusal;

/// The version of the protocol. It grows when a client that reads only what it knows would break.
pub(super) const PROTOCOL: u32 = 1;

#[derive(Serialize)]
struct Good<'a, T> {
    id: &'a Value,
    ok: bool,
    result: &'a T,
}

#[derive(Serialize)]
struct Bad<'a> {
    id: &'a Value,
    ok: bool,
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'a str,
    errno: i32,
    message: &'a str,
}

/// The first line that a client gets, and the result of `version`.
#[derive(Serialize)]
pub(super) struct Version {
    qkprobe: &'static str,
    protocol: u32,
}

impl Version {
    pub(super) const OURS: Self = Self { qkprobe: env!("CARGO_PKG_VERSION"), protocol: PROTOCOL };
}

/// Appends a value as one line.
pub(super) fn line(value: &impl Serialize, out: &mut Vec<u8>) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        // Cannot happen: writing to memory, no map keys but strings. If it does, the client still gets a whole line.
        out.truncate(before);
        out.extend_from_slice(
            br#"{"id":null,"ok":false,"error":{"code":"EIO","errno":5,"message":"the reply cannot be written as JSON"}}"#,
        );
    }
    out.push(b'\n');
}

/// Appends a reply that brings a result.
pub(super) fn good(id: &Value, result: &impl Serialize, out: &mut Vec<u8>) {
    line(&Good { id, ok: true, result }, out);
}

/// Appends a reply that refuses.
pub(super) fn bad(id: &Value, refusal: &Refusal, out: &mut Vec<u8>) {
    let error = Error { code: refusal.errno_name, errno: refusal.errno, message: &refusal.message };
    line(&Bad { id, ok: false, error }, out);
}

/// Appends either.
pub(super) fn either(id: &Value, outcome: Result<impl Serialize, Refusal>, out: &mut Vec<u8>) {
    match outcome {
        Ok(result) => good(id, &result, out),
        Err(refusal) => bad(id, &refusal, out),
    }
}
