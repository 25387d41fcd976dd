//! Which sandbox and port a request is for. The lines: host, URI, sandbox header, port header.
#![no_main]

use http::{HeaderMap, HeaderValue, Uri, header};
use libfuzzer_sys::fuzz_target;
use sandhold_gateway::fuzz::{Route, route};
use sandhold_wire::names::{ENVD_PORT, SANDBOX_ID_HEADER, SANDBOX_PORT_HEADER, is_sandbox_id};

const DOMAIN: &str = "sandhold.localhost";

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: Option<&[u8]>| {
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
            headers.insert(name, value);
        }
    };
    put(header::HOST.as_str(), line());
    let Ok(uri) = Uri::try_from(line().unwrap_or(b"/")) else {
        return;
    };
    put(SANDBOX_ID_HEADER, line());
    put(SANDBOX_PORT_HEADER, line());
    let (found, by_host) = route(&uri, &headers, DOMAIN);
    if let Some(by_host) = by_host {
        // No header leads elsewhere than the host name, which is what a browser's rules go by.
        assert_eq!(found, by_host);
        let (Route::Sandbox(id, _) | Route::BadPort(id, _)) = &by_host else {
            panic!("a host name led to {by_host:?}");
        };
        assert!(is_sandbox_id(id), "{id:?}");
    }
    match found {
        Route::Sandbox(id, port) => {
            assert!(port > 0);
            if is_sandbox_id(&id) {
                let mut again = HeaderMap::new();
                let host = format!("{port}-{id}.{DOMAIN}:3000");
                again.insert(header::HOST, HeaderValue::from_str(&host).expect("it is a header"));
                assert_eq!(
                    route(&Uri::from_static("/"), &again, DOMAIN).0,
                    Route::Sandbox(id.clone(), port)
                );
            }
            if !headers.contains_key(SANDBOX_PORT_HEADER) && headers.contains_key(SANDBOX_ID_HEADER) {
                assert!(port == ENVD_PORT || route(&uri, &headers, DOMAIN).1.is_some());
            }
        }
        Route::BadPort(_, port) => assert!(!matches!(port.parse::<u16>(), Ok(1..))),
        Route::SignedFile => assert_eq!(uri.path(), "/files"),
        Route::Api => assert!(headers.get(SANDBOX_ID_HEADER).is_none_or(|id| id.to_str().is_err())),
    }
});
