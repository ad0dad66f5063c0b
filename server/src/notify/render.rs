//! Words for people: titles, and bodies as plain text, Markdown and HTML, in Chinese, English or both. Pure: a stored message
//! always reads the same.

use super::{
    alert::{Alert, Notification, Reason, Severity},
    config::Language,
};
use jiff::tz::TimeZone;
use shipwatch_common::time::{UnixMs, format_duration};
use std::time::Duration;

/// Most letters of a title.
const MAX_TITLE: usize = 120;
/// Most letters of one annotation or label list.
const MAX_FIELD: usize = 1_500;

/// How messages are written.
#[derive(Clone, Debug)]
pub struct Renderer {
    external_url: String,
    zone: TimeZone,
    language: Language,
}

/// One alert, ready to be laid out.
struct Part {
    heading: String,
    texts: Vec<String>,
    facts: Vec<(String, String)>,
    link: String,
}

impl Renderer {
    /// With the base of links, the zone of times, and the language.
    #[must_use]
    pub fn new(external_url: &str, zone: TimeZone, language: Language) -> Self {
        Self { external_url: external_url.trim_end_matches('/').to_owned(), zone, language }
    }

    /// Base of links.
    #[must_use]
    pub fn external_url(&self) -> &str {
        &self.external_url
    }

    fn word(&self, zh: &str, en: &str) -> String {
        match self.language {
            Language::Zh => zh.to_owned(),
            Language::En => en.to_owned(),
            Language::Both => format!("{zh} {en}"),
        }
    }

    fn severity(&self, severity: Severity) -> String {
        match severity {
            Severity::Critical => self.word("严重", "critical"),
            Severity::Warning => self.word("警告", "warning"),
            Severity::Info => self.word("提示", "info"),
        }
    }

    /// One line: state, severity, what, where, how many.
    #[must_use]
    pub fn title(&self, message: &Notification) -> String {
        let state = match (message.reason, message.is_firing()) {
            (Reason::Test, _) => self.word("测试", "test"),
            (_, false) => self.word("已恢复", "resolved"),
            (Reason::Repeat, true) => format!("{} · {}", self.severity(message.severity()), self.word("仍在触发", "still firing")),
            (_, true) => self.severity(message.severity()),
        };
        let Some(first) = message.alerts.first() else { return format!("【{state}】") };
        let place = place(first).map_or_else(String::new, |place| format!(" {place}"));
        let more = match message.alerts.len() + usize::try_from(message.truncated).unwrap_or(0) {
            1 => String::new(),
            count => format!(" (+{})", count - 1),
        };
        clipped(&one_line(&format!("【{state}】{}{place}{more}", first.name())), MAX_TITLE)
    }

    /// A time with its zone.
    #[must_use]
    pub fn time(&self, at_ms: UnixMs) -> String {
        jiff::Timestamp::from_millisecond(at_ms).map_or_else(
            |_| "?".to_owned(),
            |at| {
                let zoned = at.to_zoned(self.zone.clone());
                let name = zoned.time_zone().iana_name().map_or_else(String::new, |name| format!(" {name}"));
                format!("{}{name}", zoned.strftime("%Y-%m-%d %H:%M:%S %:z"))
            },
        )
    }

    fn part(&self, alert: &Alert) -> Part {
        let severity = Severity::of(&alert.labels);
        let state = if alert.is_resolved() { self.word("已恢复", "resolved") } else { self.severity(severity) };
        let place = place(alert).map_or_else(String::new, |place| format!(" {place}"));
        let text = |name: &str| alert.annotations.get(name).map(|text| clipped(text.trim(), MAX_FIELD)).filter(|text| !text.is_empty());
        let mut facts =
            vec![(self.word("当前值", "Value"), alert.value.clone()), (self.word("触发时间", "Since"), self.time(alert.starts_at_ms))];
        if let Some(end) = alert.ends_at_ms {
            let lasted = Duration::from_secs(u64::try_from((end - alert.starts_at_ms) / 1_000).unwrap_or(0));
            facts.push((self.word("恢复时间", "Resolved"), format!("{} ({})", self.time(end), format_duration(lasted))));
        }
        let labels: Vec<String> =
            alert.labels.iter().filter(|(name, _)| *name != "alertname").map(|(name, value)| format!("{name}={value}")).collect();
        facts.push((self.word("标签", "Labels"), clipped(&labels.join(", "), MAX_FIELD)));
        if let Some(runbook) = text("runbook_url").or_else(|| text("runbook")) {
            facts.push((self.word("处理手册", "Runbook"), runbook));
        }
        Part {
            heading: one_line(&format!("【{state}】{}{place}", alert.name())),
            texts: ["summary", "description", "message"].into_iter().filter_map(text).collect(),
            facts,
            link: format!("{}/alerts/{}", self.external_url, alert.fingerprint),
        }
    }

    /// How many parts are left out.
    fn rest(&self, count: usize) -> String {
        self.word(&format!("另有 {count} 条告警未显示"), &format!("{count} more alerts are not shown"))
    }

    /// Lays parts out until `most` bytes are reached; the rest is counted.
    fn laid_out(&self, message: &Notification, most: usize, lay: impl Fn(&Part) -> String, note: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        let all = message.alerts.len() + usize::try_from(message.truncated).unwrap_or(0);
        for (at, alert) in message.alerts.iter().enumerate() {
            let next = lay(&self.part(alert));
            let left = all - at;
            let room = most.saturating_sub(if left > 1 { 200 } else { 0 });
            if text.len() + next.len() > room {
                if at == 0 {
                    text.push_str(clipped_bytes(&next, room.saturating_sub(4)));
                    text.push('…');
                    if left == 1 {
                        return text;
                    }
                    text.push_str(&note(&self.rest(left - 1)));
                } else {
                    text.push_str(&note(&self.rest(left)));
                }
                return text;
            }
            text.push_str(&next);
        }
        if message.truncated > 0 {
            text.push_str(&note(&self.rest(all - message.alerts.len())));
        }
        text
    }

    /// Plain text.
    #[must_use]
    pub fn text(&self, message: &Notification, most: usize) -> String {
        let details = self.word("详情", "Details");
        let lay = |part: &Part| {
            let mut text = format!("{}\n", part.heading);
            for line in &part.texts {
                text.push_str(&format!("{line}\n"));
            }
            for (name, value) in &part.facts {
                text.push_str(&format!("{name}: {}\n", one_line(value)));
            }
            text.push_str(&format!("{details}: {}\n\n", part.link));
            text
        };
        self.laid_out(message, most, lay, |rest| format!("{rest}\n"))
    }

    /// Markdown as chat robots read it.
    #[must_use]
    pub fn markdown(&self, message: &Notification, most: usize) -> String {
        let details = self.word("查看详情", "details");
        let lay = |part: &Part| {
            let mut text = format!("#### {}\n\n", plain(&part.heading));
            for line in &part.texts {
                text.push_str(&format!("{}\n\n", plain(line)));
            }
            for (name, value) in &part.facts {
                text.push_str(&format!("- **{name}**: {}\n", plain(value)));
            }
            text.push_str(&format!("\n[{details}]({})\n\n", part.link));
            text
        };
        self.laid_out(message, most, lay, |rest| format!("> {rest}\n\n"))
    }

    /// HTML for mail.
    #[must_use]
    pub fn html(&self, message: &Notification, most: usize) -> String {
        let details = self.word("查看详情", "Details");
        let lay = |part: &Part| {
            let mut text = format!("<h3>{}</h3>\n", escape(&part.heading));
            for line in &part.texts {
                text.push_str(&format!("<p>{}</p>\n", escape(line).replace('\n', "<br>")));
            }
            text.push_str("<table>\n");
            for (name, value) in &part.facts {
                text.push_str(&format!("<tr><th align=\"left\">{}</th><td>{}</td></tr>\n", escape(name), escape(value)));
            }
            text.push_str(&format!("</table>\n<p><a href=\"{}\">{details}</a></p>\n", escape(&part.link)));
            text
        };
        let body = self.laid_out(message, most, lay, |rest| format!("<p>{}</p>\n", escape(rest)));
        format!("<!doctype html>\n<html><head><meta charset=\"utf-8\"></head><body>\n{body}</body></html>\n")
    }
}

/// Where it is, in a word.
fn place(alert: &Alert) -> Option<&str> {
    ["instance", "host", "job", "service"].into_iter().find_map(|name| alert.labels.get(name))
}

fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Takes Markdown's power out of a text that came from elsewhere.
fn plain(text: &str) -> String {
    one_line(text).replace('[', "［").replace(']', "］").replace('<', "＜").replace('`', "'").replace("**", "* *").replace('!', "！")
}

fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most.saturating_sub(1)).chain(['…']).collect() }
}

fn clipped_bytes(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use shipwatch_common::model::Labels;
    use std::collections::BTreeMap;

    /// One that fires and one that is over.
    pub(in crate::notify) fn message(channel: &str) -> Notification {
        let alert = |instance: &str, severity: &str, starts_at_ms, ends_at_ms, fingerprint: &str| Alert {
            labels: Labels::new([("alertname", "CpuBusy"), ("instance", instance), ("env", "prod"), ("severity", severity)]).unwrap(),
            annotations: BTreeMap::from([("summary".to_owned(), format!("{instance} is busy"))]),
            value: "95.2".into(),
            starts_at_ms,
            ends_at_ms,
            generator_url: "http://shipwatch.example.com/graph?g0.expr=x&g0.tab=1".into(),
            fingerprint: fingerprint.into(),
        };
        let mut firing = alert("web-1", "critical", 1_795_501_800_000, None, "00000000000000a1");
        firing.annotations.insert("description".into(), "95.2 % of all cores for 5 minutes".into());
        Notification {
            id: "0123456789abcdef0123456789abcdef".into(),
            channel: channel.into(),
            reason: Reason::Firing,
            group_key: r#"{}:{alertname="CpuBusy"}"#.into(),
            group_labels: BTreeMap::from([("alertname".to_owned(), "CpuBusy".to_owned())]),
            truncated: 0,
            alerts: vec![firing, alert("web-2", "warning", 1_795_500_000_000, Some(1_795_501_860_500), "00000000000000a2")],
            created_at_ms: 1_795_501_861_000,
        }
    }

    pub(in crate::notify) fn renderer(language: Language) -> Renderer {
        let zone = crate::notify::config::zone("Asia/Shanghai").unwrap_or(TimeZone::UTC);
        Renderer::new("http://shipwatch.example.com/", zone, language)
    }
}

#[cfg(test)]
mod tests {
    use super::{samples::*, *};

    #[test]
    fn both_languages_say_everything() {
        let text = renderer(Language::Both).text(&message("m"), 10_000);
        assert_eq!(
            text,
            "【严重 critical】CpuBusy web-1\nweb-1 is busy\n95.2 % of all cores for 5 minutes\n当前值 Value: 95.2\n触发时间 Since: 2026-11-24 14:30:00 +08:00 Asia/Shanghai\n标签 Labels: env=prod, instance=web-1, severity=critical\n详情 Details: http://shipwatch.example.com/alerts/00000000000000a1\n\n【已恢复 resolved】CpuBusy web-2\nweb-2 is busy\n当前值 Value: 95.2\n触发时间 Since: 2026-11-24 14:00:00 +08:00 Asia/Shanghai\n恢复时间 Resolved: 2026-11-24 14:31:00 +08:00 Asia/Shanghai (31m)\n标签 Labels: env=prod, instance=web-2, severity=warning\n详情 Details: http://shipwatch.example.com/alerts/00000000000000a2\n\n"
        );
        assert!(renderer(Language::Zh).text(&message("m"), 10_000).starts_with("【严重】CpuBusy web-1\n"));
        assert!(renderer(Language::En).text(&message("m"), 10_000).starts_with("【critical】CpuBusy web-1\n"));
    }

    #[test]
    fn titles() {
        let renderer = renderer(Language::Both);
        let mut told = message("m");
        assert_eq!(renderer.title(&told), "【严重 critical】CpuBusy web-1 (+1)");
        told.reason = Reason::Repeat;
        assert_eq!(renderer.title(&told), "【严重 critical · 仍在触发 still firing】CpuBusy web-1 (+1)");
        told.alerts.remove(0);
        assert_eq!(renderer.title(&told), "【已恢复 resolved】CpuBusy web-2");
        told.reason = Reason::Test;
        assert_eq!(renderer.title(&told), "【测试 test】CpuBusy web-2");
    }

    #[test]
    fn size_is_bounded_at_character_borders_and_what_is_left_out_is_counted() {
        let renderer = renderer(Language::Both);
        let mut many = message("m");
        let one = many.alerts[0].clone();
        many.alerts = vec![one; 200];
        for most in [300, 1_000, 5_000] {
            for text in [renderer.text(&many, most), renderer.markdown(&many, most)] {
                assert!(text.len() <= most, "{} > {most}", text.len());
                assert!(text.contains("未显示"), "{text}");
            }
        }
        many.truncated = 7;
        many.alerts.truncate(2);
        assert!(renderer.text(&many, 10_000).ends_with("另有 7 条告警未显示 7 more alerts are not shown\n"));
        assert!(renderer.title(&many).ends_with("(+8)"));
        many.truncated = 0;
        many.alerts.truncate(1);
        many.alerts[0].annotations.insert("summary".into(), "长".repeat(100_000));
        assert!(renderer.markdown(&many, 1_000).len() <= 1_000);
    }

    #[test]
    fn texts_from_elsewhere_have_no_power() {
        let renderer = renderer(Language::En);
        let mut told = message("m");
        told.alerts[0].annotations.insert("summary".into(), "<script>x</script> [a](http://evil) ![i](u)\r\nBcc: x@y".into());
        let html = renderer.html(&told, 100_000);
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script>"));
        let markdown = renderer.markdown(&told, 100_000);
        assert!(!markdown.contains("](http://evil)") && !markdown.contains("<script>"), "{markdown}");
    }
}
