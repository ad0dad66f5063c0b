//! The dashboard's files, embedded in the binary.
//!
//! # Invariants
//! - Files with a hash in their name (everything below `/assets/`) may be cached for ever, the page itself never.
//! - Any address that is no file answers the page: its own routes live in the browser.

use axum::{
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{Html, IntoResponse, Redirect, Response},
};

mod files {
    include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));
}

/// Whether the binary contains the dashboard.
#[must_use]
pub const fn is_embedded() -> bool {
    !files::FILES.is_empty()
}

fn find(path: &str) -> Option<&'static [u8]> {
    files::FILES.binary_search_by(|(name, _)| (*name).cmp(path)).ok().map(|at| files::FILES[at].1)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" | "webmanifest" => "application/json",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Answers any address that no API has.
pub async fn serve(method: Method, uri: Uri) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path();
    let (path, body) = match find(path) {
        Some(body) => (path, body),
        // A missing asset is an error; a missing page is a route of the dashboard.
        None if path.starts_with("/assets/") => return StatusCode::NOT_FOUND.into_response(),
        None => match find("/index.html") {
            Some(body) => ("/index.html", body),
            None => return (StatusCode::NOT_FOUND, Html(MISSING)).into_response(),
        },
    };
    let cache = if path.starts_with("/assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// `/graph?g0.expr=…`: where Prometheus' links (`generatorURL` of alerts, templates' `graphLink`) lead.
pub async fn graph(uri: Uri) -> Response {
    // Taken over as it is encoded.
    let parameter = |name: &str| uri.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let expr = parameter("g0.expr").unwrap_or_default();
    let view = if parameter("g0.tab") == Some("1") { "&as=table" } else { "" };
    Redirect::to(&format!("/explore?expr={expr}{view}")).into_response()
}

const MISSING: &str = "<!doctype html><meta charset=\"utf-8\"><title>Shipwatch</title>
<p>This binary was built without the dashboard. Build it with <code>make web</code> (needs Node 20 or newer), then build the server again.</p>
<p>此程序未包含看板。请先运行 <code>make web</code>(需要 Node 20 或更新版本),再重新构建服务端。</p>";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_without_a_file_is_the_page_but_a_missing_asset_is_not() {
        let page = serve(Method::GET, Uri::from_static("/hosts/web-1")).await;
        assert_eq!(page.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(serve(Method::GET, Uri::from_static("/assets/gone.js")).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(serve(Method::POST, Uri::from_static("/")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(files::FILES.is_sorted_by_key(|(name, _)| *name));
    }

    #[tokio::test]
    async fn prometheus_links_lead_to_the_dashboard() {
        for (link, page) in [
            ("/graph?g0.expr=up%20%3D%3D+0&g0.tab=1", "/explore?expr=up%20%3D%3D+0&as=table"),
            ("/graph?g0.tab=0&g0.expr=up", "/explore?expr=up"),
            ("/graph", "/explore?expr="),
        ] {
            assert_eq!(graph(Uri::from_static(link)).await.headers()[header::LOCATION], page, "{link}");
        }
    }
}
