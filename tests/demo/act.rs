//! The requests of the demo, and what each must come to.

use bytes::Bytes;
use cloister_tests::{Answer, Origin, Platform};
use http::Request;
use http_body_util::Full;

use crate::show::Show;

/// Sends one request, shows it, what ran for it, and the answer.
async fn ask(platform: &Platform, show: &Show, url: &str) -> Answer {
    show.sent(&format!("GET {url}"));
    let request = Request::get(url).header("accept", "application/json").body(Full::<Bytes>::default());
    let answer = platform.http().send(request.expect("a valid URL")).await;
    for ran in platform.ran_for(&answer).await {
        show.came(&format!(
            "ran {:<22} {:<12} CPU {:>8.2} ms   wall {:>8.2} ms{}",
            ran.worker,
            ran.outcome,
            ms(ran.cpu_us),
            ms(ran.wall_us),
            if ran.cold { "   (cold start)" } else { "" },
        ));
    }
    let code = answer.code().map(|code| format!(", code {code}")).unwrap_or_default();
    show.came(&format!("{}{code}", answer.status));
    show.quote(&answer.text());
    answer
}

/// Microseconds as milliseconds; precise enough to be read.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// All requests.
pub(crate) async fn play(platform: &Platform, origin: &Origin, show: &mut Show) {
    let at = platform.address().port();
    let url = |host: &str, path: &str| format!("http://{host}.localhost:{at}{path}");

    show.title(
        "Routed by host name: *.localhost goes to the dispatch Worker, *.staging.localhost by a plain route",
    );
    let answer = ask(platform, show, &url("hello", "/a")).await;
    show.check(
        answer.text() == "good day from hello, plan free, path /a\n",
        "production/hello answered, told its plan",
    );
    let answer = ask(platform, show, &url("hello.staging", "/a")).await;
    show.check(
        answer.text().starts_with("howdy from hello"),
        "staging/hello answered: another version of the name",
    );
    let answer = ask(platform, show, &url("www", "/")).await;
    show.check(
        answer.text() == "a page from an unmodified nginx\n",
        "an nginx from Debian answered, as it is",
    );

    show.title("A customer that does not exist");
    let answer = ask(platform, show, &url("nobody", "/")).await;
    show.check(answer.status == 404 && answer.code() == Some(1042), "404, code 1042");

    show.title("A customer over its CPU limit: 100 ms, said by the dispatch Worker, measured by the kernel");
    let answer = ask(platform, show, &url("greedy", "/")).await;
    show.check(answer.text() == "request 1 of this process\n", "it serves");
    let answer = ask(platform, show, &url("greedy", "/spin")).await;
    show.check(answer.status == 503 && answer.code() == Some(1102), "503, code 1102: the process was killed");
    let answer = ask(platform, show, &url("greedy", "/")).await;
    show.check(
        answer.text() == "request 1 of this process\n",
        "the next request is served by a fresh process",
    );

    show.title("Outgoing requests, judged by the policy of the caller's namespace");
    let answer =
        ask(platform, show, &url("reader.staging", &format!("/?{}", origin.url("/news/today")))).await;
    let as_it_was = answer.status == 200 && answer.json()["headers"]["x-customer"].is_null();
    show.check(as_it_was, "allowed in staging, sent as it was");
    let answer = ask(platform, show, &url("reader", &format!("/?{}", origin.url("/partner/order")))).await;
    let header = answer.status == 200 && answer.json()["headers"]["x-customer"] == "reader";
    show.check(header, "in production by the outbound Worker, which added the header x-customer: reader");
    let before = origin.seen().len();
    let answer = ask(platform, show, &url("reader", &format!("/?{}", origin.url("/private")))).await;
    let refused = answer.status == 502 && answer.text().contains("refused by the egress policy");
    show.check(refused && origin.seen().len() == before, "denied by default, and nothing was sent");

    show.title("A hostile customer");
    let answer = ask(platform, show, &url("intruder", &format!("/?{}", origin.address))).await;
    let report = if answer.status == 200 { answer.json() } else { serde_json::Value::Null };
    let tried = report.as_object().cloned().unwrap_or_default();
    show.check(tried.len() == 7, "it tried seven things");
    for (what, outcome) in tried {
        let outcome = outcome.as_str().unwrap_or_default().to_owned();
        show.check(outcome.starts_with("refused"), &format!("{what:<40} {outcome}"));
    }
}
