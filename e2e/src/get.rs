//! One GET of a page, as a client at a place of the lab makes it. By this process: what is asked a hundred times costs more by
//! the start of a program for each than by all else.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::place::Place;

/// More than any page has that is asked for.
const MOST: usize = 8 << 20;

/// The body of `path` at `server`, asked for from `place`; why there is none, where it is not all there within `limit` or is not
/// what was asked for (a status of 400 and more).
pub fn get(place: &Place, server: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    let asked = || format!("GET http://{server}{path} from {}", place.name);
    let body = place.in_network(|| ask(server, path, limit)).with_context(asked)?;
    body.with_context(asked)
}

fn ask(server: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    let until = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(body) = whole(&answer, false)? {
            return Ok(body);
        }
        let left = until.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no whole answer within {limit:?}");
        ensure!(answer.len() < MOST, "more than {MOST} octets");
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return whole(&answer, true)?.context("the answer ends early"),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("read the answer"),
        }
    }
}

/// The body of an answer that is all there; an error where its status is one of errors. Without a length it is there at its end.
fn whole(answer: &[u8], ended: bool) -> Result<Option<String>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, body) = (String::from_utf8_lossy(&answer[..head]), &answer[head + 4..]);
    let status = head.lines().next().unwrap_or_default();
    let header = |name: &str| {
        let fits = |line: &str| {
            let (its, value) = line.split_once(':')?;
            its.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        head.lines().find_map(fits)
    };
    if !status.split(' ').nth(1).is_some_and(|code| code.starts_with(['2', '3'])) {
        bail!("answered {status:?}");
    }
    ensure!(header("transfer-encoding").is_none(), "an answer in pieces");
    let length = header("content-length").map(|length| length.parse::<usize>()).transpose()?;
    let body = match length {
        Some(length) => body.get(..length),
        None => Some(body).filter(|_| ended),
    };
    Ok(body.map(|body| String::from_utf8_lossy(body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_octet_or_its_end() {
        let whole = |text: &str, ended| whole(text.as_bytes(), ended).unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(whole("HTTP/1.1 200 OK\r\n", false), None);
        assert_eq!(whole(&format!("{head}ab"), false), None);
        assert_eq!(whole(&format!("{head}abc"), false).as_deref(), Some("abc"));
        assert_eq!(whole(&format!("{head}ab"), true), None);
        assert_eq!(whole("HTTP/1.0 204 No\r\n\r\nab", false), None);
        assert_eq!(whole("HTTP/1.0 204 No\r\n\r\nab", true).as_deref(), Some("ab"));
    }

    #[test]
    fn what_is_not_what_was_asked_for_is_an_error_that_says_what_it_is() {
        let refused =
            whole(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "answered \"HTTP/1.1 503 Service Unavailable\""
        );
        assert!(whole(b"SSH-2.0\r\n\r\n", true).is_err());
    }
}
