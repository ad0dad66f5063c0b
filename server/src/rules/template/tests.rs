use super::*;
use std::sync::Arc;

fn expand(source: &str, value: f64) -> String {
    let labels = Labels::new([("instance", "web-1:9100"), ("env", "prod"), ("job", "node")]).unwrap();
    let query = |text: &str| match text {
        "up" => {
            Ok(vec![(Arc::new(Labels::new([("instance", "b")]).unwrap()), 1.0), (Arc::new(Labels::new([("instance", "a")]).unwrap()), 0.0)])
        }
        "none" => Ok(vec![]),
        other => Err(format!("cannot run {other}")),
    };
    let data = Data { labels: &labels, value, external_url: "http://x:9700/base", now_ms: 1_700_000_000_500, query: &query };
    Template::parse(source).unwrap().expand(&data)
}

/// One line per case: template, value, expected.
#[test]
fn templates_expand_as_prometheus_expands_them() {
    let cases: &[(&str, f64, &str)] = &[
        ("plain 中文", 1.0, "plain 中文"),
        ("{{ $value }}", 1.0, "1"),
        ("{{ $value }}", 0.1, "0.1"),
        ("{{ $value }}", 1_000_000.0, "1e+06"),
        ("{{ $value }}", 123_456_789.0, "1.23456789e+08"),
        ("{{ $value }}", 99_999.5, "99999.5"),
        ("{{ $value }}", 0.000_01, "1e-05"),
        ("{{ $value }}", f64::NAN, "NaN"),
        ("{{ $value }}", f64::INFINITY, "+Inf"),
        ("{{ .Value }} {{ .Labels.env }}", 2.5, "2.5 prod"),
        ("{{ $labels.env }}/{{ $labels.nope }}|", 0.0, "prod/|"),
        ("{{$labels.env}}{{ $externalURL }}", 0.0, "prodhttp://x:9700/base"),
        ("{{ $value | humanize }}", 1_234_567.0, "1.235M"),
        ("{{ humanize $value }}", 0.001_2, "1.2m"),
        ("{{ humanize $value }}", 0.0, "0"),
        ("{{ humanize $value }}", -999.0, "-999"),
        ("{{ $value | humanize1024 }}B", 1_048_576.0, "1MiB"),
        ("{{ $value | humanize1024 }}", 1.0, "1"),
        ("{{ $value | humanizeDuration }}", 0.0, "0s"),
        ("{{ $value | humanizeDuration }}", 59.9, "59.9s"),
        ("{{ $value | humanizeDuration }}", 3_725.0, "1h 2m 5s"),
        ("{{ $value | humanizeDuration }}", -90.0, "-1m 30s"),
        ("{{ $value | humanizeDuration }}", 90_061.0, "1d 1h 1m 1s"),
        ("{{ $value | humanizeDuration }}", 0.012, "12ms"),
        ("{{ $value | humanizePercentage }}", 0.123_45, "12.35%"),
        ("{{ $value | humanizeTimestamp }}", 1_435_065_584.128, "2015-06-23 13:19:44.128 +0000 UTC"),
        ("{{ $value | printf \"%.2f\" }}%", 92.137, "92.14%"),
        ("{{ printf \"%s is %.0f%% of %d\" $labels.env $value 7 }}", 41.5, "prod is 42% of 7"),
        ("{{ printf \"%05.1f|%-6s|%6s|%+.1f\" $value \"ab\" \"cd\" $value }}", 3.25, "003.2|ab    |    cd|+3.2"),
        ("{{ printf \"%d\" $value }}", 1.5, "%!d(float64=1.5)"),
        ("{{ printf \"%s\" }}", 1.5, "%!s(MISSING)"),
        ("{{ printf \"x\" 1 }}", 1.5, "x%!(EXTRA int=1)"),
        ("{{ $labels.env | toUpper }} {{ title \"hello wide world\" }} {{ toLower \"ABC\" }}", 0.0, "PROD Hello Wide World abc"),
        ("{{ $labels.instance | stripPort }} {{ stripDomain \"a.b.c:80\" }} {{ stripDomain \"10.0.0.1\" }}", 0.0, "web-1 a:80 10.0.0.1"),
        ("{{ if gt $value 90.0 }}high{{ else if gt $value 50.0 }}middle{{ else }}low{{ end }}", 95.0, "high"),
        ("{{ if gt $value 90.0 }}high{{ else if gt $value 50.0 }}middle{{ else }}low{{ end }}", 60.0, "middle"),
        ("{{ if gt $value 90.0 }}high{{ else if gt $value 50.0 }}middle{{ else }}low{{ end }}", 1.0, "low"),
        ("{{ if eq $labels.env \"test\" \"prod\" }}yes{{ end }}", 1.0, "yes"),
        ("{{ if and (eq $labels.env \"prod\") (ne $labels.job \"x\") }}both{{ end }}", 1.0, "both"),
        ("{{ if not $labels.nope }}none{{ end }}", 1.0, "none"),
        ("{{ with $labels.nope }}{{ . }}{{ else }}empty{{ end }}", 1.0, "empty"),
        ("{{ range query \"up\" }}{{ .Labels.instance }}={{ .Value }} {{ end }}", 1.0, "b=1 a=0 "),
        ("{{ range query \"up\" | sortByLabel \"instance\" }}{{ .Labels.instance }}{{ end }}", 1.0, "ab"),
        ("{{ range $i, $s := query \"up\" }}{{ $i }}{{ label \"instance\" $s }}{{ end }}", 1.0, "0b1a"),
        ("{{ query \"up\" | first | value }}", 1.0, "1"),
        ("{{ range query \"none\" }}x{{ else }}nothing{{ end }}", 1.0, "nothing"),
        ("{{ $x := 5 }}{{ $x }}{{ $x = 6 }}{{ $x }}", 1.0, "56"),
        ("{{ range $name, $text := $labels }}{{ $name }}={{ $text }};{{ end }}", 1.0, "env=prod;instance=web-1:9100;job=node;"),
        ("a {{- /* gone */ -}} b {{- $value }}", 1.0, "ab1"),
        ("{{ `raw \\n` }}{{ \"a\\tb\" }}{{ \"}}\" }}", 1.0, "raw \\na\tb}}"),
        ("{{ match \"^web\" $labels.instance }} {{ reReplaceAll \"(.*):.*\" \"$1\" $labels.instance }}", 1.0, "true web-1"),
        ("{{ len $labels }} {{ index $labels \"env\" }}", 1.0, "3 prod"),
        ("{{ parseDuration \"1m30s\" }} {{ now }}", 1.0, "90 1.7000000005e+09"),
        ("{{ graphLink \"up > 1\" }} {{ pathPrefix }}", 1.0, "/graph?g0.expr=up+%3E+1&g0.tab=0 /base"),
        ("{{ print $value \"x\" 2 3 }} {{ html \"<a>\" }}", 1.0, "1x2 3 &lt;a&gt;"),
        ("{{ gt $value 90 }}", 1.0, "<error expanding template: error calling gt: incompatible types for comparison>"),
        ("{{ query \"bad(\" }}", 1.0, "<error expanding template: error calling query: cannot run bad(>"),
        ("{{ query \"none\" | first }}", 1.0, "<error expanding template: error calling first: first() called on vector with no elements>"),
        ("{{ .Nope }}", 1.0, "<error expanding template: can't evaluate field Nope in type data>"),
    ];
    for (source, value, expected) in cases {
        assert_eq!(expand(source, *value), *expected, "{source}");
    }
}

#[test]
fn mistakes_are_found_when_the_template_is_read() {
    for (source, told) in [
        ("{{ $value ", "unclosed action"),
        ("{{ nope $value }}", "function \"nope\" not defined"),
        ("{{ humanise $value }}", "did you mean \"humanize\"?"),
        ("{{ $nope }}", "undefined variable \"$nope\""),
        ("{{ if $value }}", "without {{end}}"),
        ("{{ end }}", "unexpected {{end}}"),
        ("{{ template \"x\" }}", "`template` is not supported"),
        ("{{ toTime 1 }}", "function \"toTime\" is not supported"),
        ("{{ }}", "missing value"),
        ("{{ ($value }}", "unclosed left paren"),
        ("{{ $value 1 }}", "only a function"),
        ("{{ \"x }}", "unclosed action"),
        ("{{ 1x }}", "bad number"),
    ] {
        let error = Template::parse(source).unwrap_err();
        assert!(error.contains(told), "{source}: {error}");
    }
    let deep = "{{ if true }}".repeat(200) + &"{{ end }}".repeat(200);
    assert!(Template::parse(&deep).unwrap_err().contains("nested deeper"));
    assert!(Template::parse(&format!("{{{{ {}1{} }}}}", "(".repeat(500), ")".repeat(500))).unwrap_err().contains("nested deeper"));
}

#[test]
fn what_grows_is_bounded() {
    let nested = "{{ range query \"up\" }}".repeat(20) + "x" + &"{{ end }}".repeat(20);
    assert!(expand(&nested, 1.0).contains("too large"));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "{{", "}}", "{{-", "-}}", "if", "else", "end", "range", "$value", "$labels", ".env", ".", "|", "(", ")", "printf", "\"%5.1f\"", "humanize",
        "\"", "`", "1", "-1.5", ":=", "=", "$x", ",", "é", "/*", "*/", " ", "and", "index", "query", "\"up\"", "with", "true",
    ]), 0..16)) {
        let labels = Labels::default();
        let data = Data { labels: &labels, value: 1.0, external_url: "", now_ms: 0, query: &|_| Ok(vec![]) };
        for glue in ["", " "] {
            let _ = Template::parse(&words.join(glue)).map(|template| template.expand(&data));
        }
    }
}
