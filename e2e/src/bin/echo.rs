//! The lab's workload: answers every HTTP request with its pod's name, and its node's where `NODE_NAME` says so. At
//! `/client` it says who asks.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::Duration,
};

fn main() -> ExitCode {
    let variable =
        |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let pod = variable("POD_NAME", &variable("HOSTNAME", "unnamed"));
    let answer = format!("{pod} {}", variable("NODE_NAME", ""));
    let answer = format!("{}\n", answer.trim_end());
    let port = variable("PORT", "8080");
    let Ok(port) = port.parse::<u16>() else {
        eprintln!("PORT={port:?}: a number from 1 to 65535 is accepted");
        return ExitCode::FAILURE;
    };
    // One socket takes both families (RFC 3493 section 5.3), unless the kernel has no IPv6.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = match listener {
        Ok(listener) => listener,
        Err(e) => {
            eprintln!("listen on port {port}: {e}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("{pod} answers on port {port}");
    for stream in listener.incoming().flatten() {
        let answer = answer.clone();
        thread::spawn(move || serve(stream, &answer));
    }
    ExitCode::SUCCESS
}

/// Serves requests on one connection until the client ends it.
fn serve(mut stream: TcpStream, answer: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let _ = stream.set_nodelay(true);
    let client = stream.peer_addr().map(|peer| format!("{}\n", peer.ip().to_canonical()));
    let client = client.unwrap_or_default();
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        request.extend_from_slice(&buffer[..n]);
        while let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            request.drain(..end + 4);
            let answer = if head.starts_with("get /client ") { client.as_str() } else { answer };
            let close = head.contains("connection: close")
                || head.lines().next().is_some_and(|l| l.ends_with("http/1.0"));
            let connection = if close { "close" } else { "keep-alive" };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
                answer.len()
            );
            if stream.write_all((head + answer).as_bytes()).is_err() || close {
                return;
            }
        }
        if request.len() > 64 * 1024 {
            return;
        }
    }
}
