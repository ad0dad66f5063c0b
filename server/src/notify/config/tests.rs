use super::*;

fn told(text: &str) -> Vec<String> {
    #[derive(Default, Deserialize, Serialize)]
    #[serde(default)]
    struct Whole {
        notify: Config,
    }
    let read = shipwatch_common::config::load::<Whole>(text, std::path::Path::new("s.toml"), &[], |config, problems| {
        config.notify.check(problems.section("notify"));
    });
    read.err().map_or_else(Vec::new, |problems| problems.list().iter().map(ToString::to_string).collect())
}

#[test]
fn good_channels_pass() {
    let text = r#"
[notify]
group_by = ["alertname", "env"]
time_zone = "UTC"
[[notify.channels]]
name = "ding"
kind = "dingtalk"
url_file = "/etc/shipwatch/ding.url"
secret = "SECxxxxxxxx"
min_severity = "warning"
matchers = ['env="prod"', 'team=~"a|b"']
[[notify.channels]]
name = "mail"
kind = "email"
host = "localhost"
port = 2525
tls = "none"
from = "Shipwatch <a@example.com>"
to = ["b@example.com"]
"#;
    assert_eq!(told(text), Vec::<String>::new());
}

#[test]
fn mistakes_are_told_without_secrets() {
    let text = r#"
[notify]
group_interval = "0s"
time_zone = "Mars/Olympus"
[[notify.channels]]
name = "a b"
kind = "webhook"
url = "ftp://x/tok-1234567"
host = "y"
[[notify.channels]]
name = "mail"
kind = "email"
host = "mail.example.com"
tls = "none"
username = "u"
from = "nobody"
to = []
matchers = ["env", "x=~\"(\""]
[[notify.channels]]
name = "mail"
kind = "dingtalk"
"#;
    let all = told(text).join("\n");
    for expected in [
        "s.toml:3: `notify.group_interval` must be from 1s to 1d, not 0s",
        "`notify.time_zone` \"Mars/Olympus\" is no time zone",
        "`notify.channels.0.name` must be 1 to 64 letters",
        "`notify.channels.0.url` must be a URL",
        "`notify.channels.0.host` has no meaning for a channel of kind webhook",
        "`notify.channels.1.tls` may be \"none\" only",
        "`notify.channels.1.username` and `password`",
        "`notify.channels.1.from` must be a mail address",
        "`notify.channels.1.to` is missing",
        "`notify.channels.1.matchers` must look like",
        "`notify.channels.2.name` is used by two channels",
        "`notify.channels.2.url` is missing",
    ] {
        assert!(all.contains(expected), "missing {expected:?} in\n{all}");
    }
    assert!(!all.contains("tok-1234567"), "{all}");
    let unknown = told("[[notify.channels]]\nname = \"x\"\nkind = \"webhook\"\nurl = \"https://x/secret-token\"\nscret = 1\n").join("\n");
    assert!(unknown.contains("unknown field `scret`") && !unknown.contains("secret-token"), "{unknown}");
}
