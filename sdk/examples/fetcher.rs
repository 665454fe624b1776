//! Fetches what it is asked to: `GET /?url=http://…` answers with the status, the headers and the
//! body that came back, or with the reason why nothing did.

use cloister::{Body, BoxError, Context, Env, FetchError, Request, Response};
use http::{StatusCode, Uri};

fn text(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// Undoes percent-encoding; what is not encoded properly is left as it is.
fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn answer(request: Request, _env: Env, _ctx: Context) -> Result<Response, BoxError> {
    let query = request.uri().query().unwrap_or_default();
    let url = query.split('&').find_map(|pair| pair.strip_prefix("url=")).map(decode);
    let Some(Ok(url)) = url.map(|url| url.parse::<Uri>()) else {
        return Ok(text(StatusCode::BAD_REQUEST, "ask for /?url=http://…\n".to_owned()));
    };
    match cloister::fetch(http::Request::get(url).body(Body::empty())?).await {
        Ok(response) => {
            let mut page = format!("status: {}\n", response.status().as_u16());
            for (name, value) in response.headers() {
                page.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
            }
            let body = response.into_body().bytes(1 << 20).await?;
            page.push('\n');
            page.push_str(&String::from_utf8_lossy(&body));
            Ok(text(StatusCode::OK, page))
        }
        Err(error @ FetchError::Denied(_)) => Ok(text(StatusCode::FORBIDDEN, format!("{error}\n"))),
        Err(error @ FetchError::Subrequests) => Ok(text(StatusCode::TOO_MANY_REQUESTS, format!("{error}\n"))),
        Err(error) => Ok(text(StatusCode::BAD_GATEWAY, format!("{error}\n"))),
    }
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(answer)
}
