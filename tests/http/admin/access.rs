//! Every route and verb, without a token, with wrong ones, and with each role.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use tenantry::http::admin::{self, Authorization, Role, WeakToken, routes};
use tenantry_testkit::FakeFactory;

use super::{ADMIN, READER, TENANT, get, request, router};
use crate::{Answer, ask, pools};

fn verbs() -> Vec<Method> {
    let unknown = Method::from_bytes(b"BREW").unwrap();
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    known.into_iter().chain([Method::TRACE, Method::CONNECT, unknown]).collect()
}

/// Paths of the table, and some that are in none.
fn paths() -> impl Iterator<Item = &'static str> {
    let unknown = ["/api", "/api/", "/api/stats/", "/api/unknown", "/favicon.ico", "/robots.txt"];
    routes().iter().map(admin::Route::path).chain(unknown)
}

#[track_caller]
fn assert_protected(answer: &Answer, what: &str) {
    let headers = [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    for (name, value) in headers {
        assert_eq!(answer.header(name), Some(value), "{what}");
    }
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
    assert!(!policy.contains("unsafe"), "{what}: {policy}");
    let cors = answer.head.headers().keys().find(|name| name.as_str().starts_with("access-control"));
    assert_eq!(cors, None, "{what}");
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.body);
    assert!(!answer.body.contains(TENANT) && !answer.body.contains("in_use\":"), "{what}: {}", answer.body);
    assert_protected(answer, what);
}

#[tokio::test]
async fn nobody_gets_anything_on_any_route_and_verb_without_a_token() {
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder);
    drop(pools.acquire(TENANT).await.unwrap());
    let admin = router(&pools);
    // Of the two ways in which axum nests, one has the address with a slash at its end as well.
    let nested = [Router::new().nest("/admin", router(&pools)), Router::new().nest_service("/admin", router(&pools))];
    let wrong = [None, Some("not-a-token-of-this"), Some(""), Some(&ADMIN[1..]), Some("an-admin-of-the-tesT")];
    let mut refused = 0;
    for (path, verb) in paths().flat_map(|path| verbs().into_iter().map(move |verb| (path, verb))) {
        for token in wrong {
            let what = format!("{verb} {path} with {token:?}");
            let answer = ask(&admin, request(verb.clone(), path, token)).await;
            assert_refused(&answer, 401, &what);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"tenantry\""), "{what}");
            let inner = path.strip_suffix('/').unwrap_or(path);
            for (nested, path) in [(&nested[0], inner), (&nested[1], inner), (&nested[1], path)] {
                let answer = ask(nested, request(verb.clone(), &format!("/admin{path}"), token)).await;
                assert_refused(&answer, 401, &format!("nested: {what}"));
            }
            refused += 1;
        }
    }
    assert_eq!(refused, (routes().len() + 6) * 10 * 5);
    // Nothing was done either.
    let tenant = pools.tenant_stats(TENANT).unwrap();
    assert_eq!((tenant.draining, tenant.idle, tenant.totals.connects), (false, 1, 1));
}

#[tokio::test]
async fn a_token_elsewhere_than_in_the_one_header_is_none() {
    let admin = router(&pools(&FakeFactory::new(), |builder| builder));
    let heads: [&[(&str, String)]; 6] = [
        &[("authorization", ADMIN.to_owned())],
        &[("authorization", format!("Basic {ADMIN}"))],
        &[("authorization", format!("Bearer  {ADMIN}"))],
        &[("authorization", format!("Bearer {ADMIN}")), ("authorization", format!("Bearer {ADMIN}"))],
        &[("cookie", format!("token={ADMIN}"))],
        &[("x-authorization", format!("Bearer {ADMIN}"))],
    ];
    for head in heads {
        let request =
            head.iter().fold(Request::get("/api/stats"), |request, (name, value)| request.header(*name, value));
        assert_refused(&ask(&admin, request.body(Body::empty()).unwrap()).await, 401, &format!("{head:?}"));
    }
    let request = Request::get(format!("/api/stats?access_token={ADMIN}&token={ADMIN}"));
    assert_refused(&ask(&admin, request.body(Body::empty()).unwrap()).await, 401, "in the query");
    let request = Request::get("/api/stats").header(header::AUTHORIZATION, format!("bEARER {ADMIN}"));
    assert_eq!(ask(&admin, request.body(Body::empty()).unwrap()).await.status, 200, "a scheme has no case");
}

#[tokio::test(start_paused = true)]
async fn each_role_gets_its_routes_by_their_verbs_and_no_more() {
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder);
    // One with something to list, and something to drain, for which time flies.
    let _lease = pools.acquire(TENANT).await.unwrap();
    let admin = router(&pools);
    let (mut served, mut forbidden) = (0, 0);
    for (token, role) in [(READER, Role::Read), (ADMIN, Role::Admin)] {
        for (route, verb) in routes().iter().flat_map(|route| verbs().into_iter().map(move |verb| (route, verb))) {
            let what = format!("{verb} {route:?} as {role:?}");
            let answer = ask(&admin, request(verb.clone(), route.path(), Some(token))).await;
            assert_protected(&answer, &what);
            let own = if route.writes() { verb == Method::POST } else { verb == Method::GET || verb == Method::HEAD };
            if !own {
                assert_refused(&answer, 405, &what);
            } else if role < route.role() {
                assert_refused(&answer, 403, &what);
                forbidden += 1;
            } else {
                assert_eq!(answer.status, 200, "{what}: {}", answer.body);
                assert_eq!(answer.body.contains(TENANT), route.role() == Role::Admin && verb != Method::HEAD, "{what}");
                served += 1;
            }
        }
        assert_eq!(ask(&admin, request(Method::GET, "/api/unknown", Some(token))).await.status, 404);
    }
    let of = |role| {
        routes()
            .iter()
            .filter(|route| route.role() == role)
            .map(|route| if route.writes() { 1 } else { 2 })
            .sum::<usize>()
    };
    assert_eq!((forbidden, served), (of(Role::Admin), 2 * of(Role::Read) + of(Role::Admin)));
    assert!(routes().iter().all(|route| !route.writes() || route.role() == Role::Admin));
}

#[tokio::test]
async fn a_browser_without_a_token_gets_the_page_and_nothing_else() {
    let pools = pools(&FakeFactory::new(), |builder| builder);
    drop(pools.acquire(TENANT).await.unwrap());
    let admin = router(&pools);
    let without = crate::get(&admin, "/").await;
    assert_eq!((without.status.as_u16(), without.header("content-type")), (401, Some("text/html; charset=utf-8")));
    let with = get(&admin, "/", READER).await;
    assert_eq!(with.status, 200);
    assert_eq!(without.body, with.body, "the same for everybody: what it shows it asks for itself");
    for text in ["http://", "https://", "//cdn", "@import", "url("] {
        let others = without.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!others.contains(text), "the page asks nobody else, and has {text:?}");
    }
    let policy = without.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'sha256-") && policy.contains("connect-src 'self'"), "{policy}");
}

#[tokio::test]
async fn the_page_and_all_else_are_there_with_a_slash_at_the_end_of_the_address_as_well() {
    let app = Router::new().nest_service("/admin", router(&pools(&FakeFactory::new(), |builder| builder)));
    let page = get(&app, "/admin", READER).await;
    let metrics = cfg!(feature = "metrics").then_some("/admin/metrics");
    for uri in ["/admin", "/admin/", "/admin/api/stats"].into_iter().chain(metrics) {
        let answer = get(&app, uri, READER).await;
        assert_eq!(answer.status, 200, "{uri}");
        assert_protected(&answer, uri);
    }
    assert_eq!(get(&app, "/admin/", READER).await.body, page.body);
    assert_eq!(crate::get(&app, "/admin/").await.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(get(&app, "/admin/api/stats/", READER).await.status, 404);
}

#[tokio::test]
async fn a_check_of_the_callers_own_decides_alone() {
    let pools = pools(&FakeFactory::new(), |builder| builder);
    let check = Authorization::check(|head| {
        let user = head.headers.get("x-user").map(|user| user.as_bytes().to_vec());
        async move {
            tokio::task::yield_now().await;
            match user.as_deref() {
                Some(b"root") => Some(Role::Admin),
                Some(b"guest") => Some(Role::Read),
                _ => None,
            }
        }
    });
    let admin: Router = admin::router(&pools, check);
    for (user, stats, tenants) in [("root", 200, 200), ("guest", 200, 403), ("nobody", 401, 401)] {
        for (path, status) in [("/api/stats", stats), ("/api/tenants", tenants)] {
            let request = Request::get(path).header("x-user", user).body(Body::empty()).unwrap();
            assert_eq!(ask(&admin, request).await.status, status, "{user} {path}");
        }
    }
    assert_eq!(get(&admin, "/api/stats", ADMIN).await.status, 401, "no token counts here");
}

#[test]
fn tokens_that_can_be_guessed_or_not_be_sent_are_refused() {
    let refusal = |tokens: &[&str]| Authorization::tokens(tokens.iter().map(|token| (Role::Read, *token))).unwrap_err();
    assert_eq!(refusal(&[]), WeakToken::None);
    assert!(matches!(refusal(&["0123456789abcdef", ""]), WeakToken::Short { bytes: 0, .. }));
    assert!(matches!(refusal(&["0123456789abcde"]), WeakToken::Short { bytes: 15, .. }));
    assert_eq!(refusal(&["0123456789 abcdef"]), WeakToken::NotVisible);
    assert_eq!(refusal(&["0123456789äbcdef"]), WeakToken::NotVisible);
    let good = Authorization::tokens([(Role::Read, ADMIN)]).unwrap();
    assert!(!format!("{good:?}").contains(ADMIN));
}

#[tokio::test(start_paused = true)]
async fn the_router_keeps_no_manager_open() {
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder);
    let admin = router(&pools);
    drop(pools.acquire(TENANT).await.unwrap());
    assert_eq!(get(&admin, "/api/stats", READER).await.json()["available"], true);
    drop(pools);
    fake.until(|fake| fake.open().now == 0).await;
    let stats = get(&admin, "/api/stats", READER).await;
    assert_eq!(stats.status, 200);
    assert_eq!((&stats.json()["available"], &stats.json()["totals"]["connects"]), (&false.into(), &1.into()));
    let listed = get(&admin, "/api/tenants", ADMIN).await;
    assert_eq!((listed.status.as_u16(), &listed.json()["tenants"][0]["tenant"]), (200, &TENANT.into()));
    for path in routes().iter().filter(|route| route.writes()).map(admin::Route::path) {
        let answer = ask(&admin, request(Method::POST, path, Some(ADMIN))).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "closed"), "{path}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fake.open().now, 0);
}
