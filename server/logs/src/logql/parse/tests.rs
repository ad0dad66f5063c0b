use super::*;
use proptest::prelude::*;

/// Reads, and shows what was read.
#[track_caller]
fn read(text: &str, shown: &str) {
    let expr = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(expr.to_string(), shown, "{text}");
    // What is shown means the same.
    assert_eq!(parse(shown).unwrap_or_else(|error| panic!("{shown}: {error}")).to_string(), shown);
}

#[track_caller]
fn refused(text: &str, column: usize, message: &str) {
    let error = parse(text).expect_err(text);
    assert!(error.column == column && error.message.contains(message), "{text}: {error}");
}

#[test]
fn log_queries_are_read() {
    for (text, shown) in [
        (r#"{app="shop",}"#, r#"{app="shop"}"#),
        (r#"({app="shop"} |= "x")"#, r#"{app="shop"} |= "x""#),
        (
            r#"{a="b",c!="d",e=~"f.+",g!~"h"}|="x"!="y"|~"z"!~`\d` |> "<_>a" !> "b<_>""#,
            r#"{a="b", c!="d", e=~"f.+", g!~"h"} |= "x" != "y" |~ "z" !~ "\\d" |> "<_>a" !> "b<_>""#,
        ),
        (r#"{a="b"} |= "x" or "y" or `z` # a comment"#, r#"{a="b"} |= "x" or "y" or "z""#),
        (r#"{a="b"} | json"#, r#"{a="b"} | json"#),
        (r#"{a="b"} | json x="c.d[0][\"e f\"]", y | x="1""#, r#"{a="b"} | json x="c.d[0][\"e f\"]", y | x="1""#),
        (r#"{a="b"} | logfmt --strict --keep-empty x="y", z"#, r#"{a="b"} | logfmt --strict --keep-empty x="y", z"#),
        (
            r#"{a="b"} | pattern "<ip> <_>" | regexp "(?P<x>\\d+)" | unpack | decolorize"#,
            r#"{a="b"} | pattern "<ip> <_>" | regexp "(?P<x>\\d+)" | unpack | decolorize"#,
        ),
        (r#"{a="b"} | x="1" or y>=20ms and z!=5KB, w==-1.5e-3"#, r#"{a="b"} | (x="1" or ((y >= 20ms and z != 5KB) and w == -1.5e-3))"#),
        (r#"{a="b"} | (x="1" or y=~"2") and z=3"#, r#"{a="b"} | ((x="1" or y=~"2") and z == 3)"#),
        (r#"{a="b"} | json="x" | drop = "y""#, r#"{a="b"} | json="x" | drop="y""#),
        (
            r#"{a="b"} | line_format "{{.x}}" | label_format y=x, z="{{.y}}""#,
            r#"{a="b"} | line_format "{{.x}}" | label_format y=x, z="{{.y}}""#,
        ),
        (r#"{a="b"} | drop x, y="1", z=~"2" | keep w"#, r#"{a="b"} | drop x, y="1", z=~"2" | keep w"#),
        (r#"{a="b"} | __error__="" | __error__!="JSONParserErr""#, r#"{a="b"} | __error__="" | __error__!="JSONParserErr""#),
    ] {
        read(text, shown);
    }
}

#[test]
fn metric_queries_are_read() {
    for (text, shown) in [
        (r#"rate({a="b"}[5m])"#, r#"rate({a="b"} [5m])"#),
        (r#"count_over_time({a="b"}[1h30m] |= "x" | json)"#, r#"count_over_time({a="b"} |= "x" | json [1h30m])"#),
        (r#"rate(({a="b"} | logfmt)[1m] offset 1h)"#, r#"rate({a="b"} | logfmt [1m] offset 1h)"#),
        (r#"bytes_rate({a="b"}[1m] offset -5m)"#, r#"bytes_rate({a="b"} [1m] offset -5m)"#),
        (r#"sum by (x, y) (rate({a="b"}[1m]))"#, r#"sum by (x, y) (rate({a="b"} [1m]))"#),
        (r#"sum(rate({a="b"} | json [1m])) without(x)"#, r#"sum without (x) (rate({a="b"} | json [1m]))"#),
        (r#"sum(rate({a="b"} | json x [1m])) by ()"#, r#"sum by () (rate({a="b"} | json x [1m]))"#),
        (
            r#"quantile_over_time(0.99, {a="b"} | json | unwrap duration_seconds(t) | __error__="" [5m]) by (p)"#,
            r#"quantile_over_time(0.99, {a="b"} | json | unwrap duration(t) | __error__="" [5m]) by (p)"#,
        ),
        (r#"sum_over_time({a="b"}[5m] | logfmt | unwrap bytes(s))"#, r#"sum_over_time({a="b"} | logfmt | unwrap bytes(s) [5m])"#),
        (r#"topk(3, sum by (x) (rate({a="b"}[1m])))"#, r#"topk(3, sum by (x) (rate({a="b"} [1m])))"#),
        (r#"vector(1)+vector(1)"#, "(vector(1) + vector(1))"),
        ("1 + 2 * 3 ^ 2 - 4 / 8", "18.5"),
        ("2 ^ 3 ^ 2", "512"),
        ("(1 + 2) * 3", "9"),
        ("5 > bool 3", "1"),
        (
            r#"rate({a="b"}[1m]) / on (x) rate({c="d"}[1m]) > bool 0.5 or vector(0)"#,
            r#"(((rate({a="b"} [1m]) / on (x) rate({c="d"} [1m])) > bool 0.5) or vector(0))"#,
        ),
        (
            r#"sort_desc(rate({a="b"}[1m]) unless ignoring (x) vector(1))"#,
            r#"sort_desc((rate({a="b"} [1m]) unless ignoring (x) vector(1)))"#,
        ),
        (r#"label_replace(vector(1), "a", "$1", "b", "(.*)")"#, r#"label_replace(vector(1), "a", "$1", "b", "(.*)")"#),
        (r#"absent_over_time({a="b"}[1d])"#, r#"absent_over_time({a="b"} [24h])"#),
    ] {
        read(text, shown);
    }
}

/// From Loki's handbook, as people know them.
#[test]
fn examples_of_the_handbook_are_read() {
    for text in [
        r#"{container="query-frontend",namespace="loki-dev"} |= "metrics.go" | logfmt | duration > 10s and throughput_mb < 500"#,
        r#"{name="kafka"} |~ "tsdb-ops.*io:2003""#,
        r#"{job="loki-ops/query-frontend"} |= "metrics.go" !="out of order" | logfmt | duration > 30s or status_code!="200""#,
        r#"{job="loki-ops/query-frontend"} | logfmt | duration >= 20ms or (method="GET" and size <= 20KB)"#,
        r#"{job="x"} | duration >= 20ms or method="GET", size <= 20KB"#,
        r#"{app="x"} |= `level=error` | json first_server="servers[0]", ua="request.headers[\"User-Agent\"]""#,
        "{cluster=\"ops-tools1\", name=\"querier\", namespace=\"loki-dev\"}\n  |= \"metrics.go\" != \"loki-canary\"\n  | logfmt\n  | query != \"\"\n  | label_format query=\"{{ Replace .query \\\"\\\\n\\\" \\\"\\\" -1 }}\"\n  | line_format \"{{ .ts}}\\t{{.duration}}\"",
        "{app=\"foo\"} # anything that comes after will not be interpreted\n # |= \"nothing\"\n | json",
        r#"rate({job="mysql"} |= "error" != "timeout" [10s] offset 5m)"#,
        r#"count_over_time({job="mysql"}[5m] offset 5m)"#,
        r#"sum by (host) (rate({job="mysql"} |= "error" != "timeout" | json | duration > 10s [1m]))"#,
        r#"quantile_over_time(0.99, {cluster="ops-tools1",container="ingress-nginx"} | json | __error__ = "" | unwrap request_time [1m]) by (path)"#,
        r#"sum by (org_id) (sum_over_time({cluster="ops-tools1",container="loki-dev"} |= "metrics.go" | logfmt | unwrap bytes_processed [1m]))"#,
        r#"topk(10, sum(rate({region="us-east1"}[5m])) by (name))"#,
        r#"avg(rate(({job="nginx"} |= "GET" | json | path="/home")[10s])) by (region)"#,
        r#"sum(rate({app="foo", level="error"}[1m])) / sum(rate({app="foo"}[1m]))"#,
        r#"sum without(app) (count_over_time({app="foo"}[1m])) > bool sum without(app) (count_over_time({app="bar"}[1m]))"#,
        r#"sum(count_over_time({foo="bar"}[1m])) == bool 1"#,
        r#"rate({app=~"foo|bar"}[1m]) and rate({app="bar"}[1m])"#,
        r#"max by (machine) (count_over_time({app="foo"}[1m])) > bool ignoring(app) avg(count_over_time({app="bar"}[1m]))"#,
        r#"count_over_time({job="x"} | pattern "<ip> - - <_> \"<method> <uri> <_>\" <status> <size>" | status >= 400 [5m])"#,
        r#"sum by (level) (count_over_time({app="x"} | json | drop __error__, level="debug" | keep level [$R]))"#,
        r#"absent_over_time({job="mysql",instance=~".*"}[1h])"#,
        r#"label_replace(rate({job="api-server",service="a:c"} |= "err" [1m]), "foo", "$1", "service", "(.*):.*")"#,
    ] {
        let text = text.replace("$R", "5m");
        parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, column, message) in [
        ("", 1, "the query is empty"),
        ("{}", 1, "queries require at least one regexp or equality matcher"),
        (r#"{a=~".*"}"#, 1, "queries require at least one"),
        (r#"{a!="b"}"#, 1, "queries require at least one"),
        (r#"{a="b""#, 7, "expected `,` or `}`, found the end"),
        (r#"{a="b"} x"#, 9, "expected the end of the query, found `x`"),
        (r#"{a="b"} |"#, 10, "expected a parser, a formatter, or a condition on a label"),
        (r#"{a="b"} | nope"#, 11, "`nope` is no stage"),
        (r#"{a="b"} | x="#, 13, "expected a text in quotes"),
        (r#"{a="b"} | x > "5""#, 15, "expected a number"),
        (r#"{a="b"} | x > 5q"#, 15, "`5q` is not a number"),
        (r#"{a="b"} | x = ip("10.0.0.0/8")"#, 15, "`ip()` is not supported"),
        (r#"{a="b"} |= ip("10.0.0.0/8")"#, 12, "`ip()` is not supported"),
        (r#"{a="b"} |~ "(""#, 12, "unclosed group"),
        (r#"{a="b"} |~ "a)" or "(b""#, 12, "the pattern is wrong"),
        (r#"{a="b"} | regexp "x""#, 18, "captures nothing"),
        (r#"{a="b"} | pattern "x""#, 19, "captures nothing"),
        (r#"{a="b"} | pattern "<a><b>""#, 19, "put a text between them"),
        (r#"{a="b"} | line_format "{{.x""#, 23, "expected `}}`"),
        (r#"{a="b"} | label_format x=y, x=z"#, 29, "set twice"),
        (r#"{a="b"} | json x="[""#, 18, "no path in JSON"),
        (r#"{a="b"} | distinct x"#, 11, "`distinct` is not supported"),
        (r#"{a="b"} | unwrap x"#, 9, "expected the end of the query"),
        (r#"rate({a="b"})"#, 13, "expected a range such as [5m], found `)`"),
        (r#"rate({a="b"}[5x])"#, 14, "`5x` is not a duration"),
        (r#"rate({a="b"}[0s])"#, 16, "longer than nothing"),
        (r#"rate({a="b"}[5m:1m])"#, 16, "subqueries are not supported"),
        (r#"sum_over_time({a="b"}[5m])"#, 1, "invalid aggregation sum_over_time without unwrap"),
        (r#"count_over_time({a="b"} | unwrap x [5m])"#, 1, "invalid aggregation count_over_time with unwrap"),
        (r#"rate({a="b"}[5m]) by (x)"#, 19, "grouping not allowed for rate aggregation"),
        (r#"sum by (a) (rate({a="b"}[5m])) by (b)"#, 32, "given twice"),
        (r#"topk(rate({a="b"}[5m]))"#, 6, "takes a whole number above 0 first"),
        (r#"rate_counter({a="b"} | unwrap x [5m])"#, 1, "`rate_counter` is not supported"),
        (r#"nope({a="b"}[5m])"#, 1, "the function `nope` is not known"),
        (r#"vector(1) * on (x) group_left vector(1)"#, 20, "`group_left` is not supported"),
        (r#"vector(1) and 5"#, 15, "joins vectors"),
        (r#"vector(1) + bool 5"#, 11, "`bool` belongs to comparisons"),
        (r#"sum({a="b"})"#, 5, "a log query stands alone"),
        (r#"sum(1)"#, 6, "aggregates a vector"),
        (r#"sum_over_time({a="b"} | unwrap nope(x) [5m])"#, 32, "does not convert"),
        (r#"sum_over_time({a="b"} | unwrap x | json [5m])"#, 34, "only conditions on labels"),
    ] {
        refused(text, column, message);
    }
    refused(&format!(r#"{{a="b"}} {}"#, r#"|= "x" "#.repeat(70)), 450, "more than 64 conditions");
    assert!(parse(&"(".repeat(10_000)).is_err() && parse(&format!("{}1", "(".repeat(40))).unwrap_err().message.contains("deeper than 32"));
}

#[test]
fn a_selector_alone_may_select_all() {
    assert!(parse_selector("{}").is_ok_and(|matchers| matchers.is_empty()));
    assert!(parse_selector(r#"{a="b"} |= "x""#).is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    /// Pieces of the language in any order: deeper than letters get.
    #[test]
    fn any_pieces_are_read_or_refused(pieces in prop::collection::vec(0usize..44, 0..24)) {
        const PIECES: [&str; 44] = [
            r#"{a="b"}"#, "{", "}", r#"a="b""#, "|=", "!=", "|~", "|>", r#""x""#, "`<a> <b>`", "or", "and", "|", "json", "logfmt", "pattern",
            "regexp", "unpack", "line_format", "label_format", "drop", "keep", "decolorize", "unwrap", "duration(", "x", "=", ">", "5ms",
            "[5m]", "offset", "1h", "rate(", "sum(", "by", "(", ")", ",", "topk(2,", "quantile_over_time(0.5,", "vector(1)", "+", "on(x)", "bool",
        ];
        let text = pieces.iter().map(|piece| PIECES[*piece]).collect::<Vec<_>>().join(" ");
        if let Ok(expr) = parse(&text) {
            let shown = expr.to_string();
            prop_assert_eq!(parse(&shown).map(|expr| expr.to_string()), Ok(shown));
        }
    }
}
