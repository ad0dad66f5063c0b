//! What a line has beside its text: fields with values. Some become labels of its stream, the others are written behind the text.
//!
//! # Invariants
//! - A value that is no text is written as JSON. Behind a text that is a JSON object, fields become its further members;
//!   behind any other text they are `name=value` as in logfmt. A field that the object has already is left as it is there.

use serde_json::{Map, Value};

/// Most fields of one line; further ones are left out.
const MAX_FIELDS: usize = 500;

/// Names and values in the order they came in.
pub(super) type Fields = Vec<(String, Value)>;

/// Objects within objects as names with points.
pub(super) fn flatten(prefix: &str, object: Map<String, Value>, out: &mut Fields) {
    for (name, value) in object {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Object(inner) if !inner.is_empty() => flatten(&name, inner, out),
            Value::Null => {}
            value if out.len() < MAX_FIELDS => out.push((name, value)),
            _ => return,
        }
    }
}

/// A value as the text of a label, or behind a line.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The label that a field becomes: the product's own names where there is one.
pub(super) fn label_name(field: &str) -> String {
    match field {
        "service.name" | "fields.app" => "app".to_owned(),
        "host.name" => "host".to_owned(),
        "deployment.environment" | "deployment.environment.name" | "fields.env" => "env".to_owned(),
        "cloud.region" => "region".to_owned(),
        "log.file.path" => "filename".to_owned(),
        other => {
            let mut name: String = other.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                name.insert(0, '_');
            }
            name
        }
    }
}

/// Whether `field` is `name` or below it.
pub(super) fn is_within(field: &str, name: &str) -> bool {
    field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A line's text with its further fields.
pub(super) fn with_fields(mut text: String, fields: &[(String, Value)]) -> String {
    if fields.is_empty() {
        return text;
    }
    let trimmed = text.trim_end();
    if trimmed.starts_with('{')
        && trimmed.ends_with('}')
        && let Ok(object) = serde_json::from_str::<Map<String, Value>>(trimmed)
    {
        text.truncate(trimmed.len() - 1);
        let mut is_empty = object.is_empty();
        for (name, value) in fields.iter().filter(|(name, _)| !object.contains_key(name)) {
            if !is_empty {
                text.push(',');
            }
            is_empty = false;
            text.push_str(&Value::from(name.as_str()).to_string());
            text.push(':');
            text.push_str(&value.to_string());
        }
        text.push('}');
        return text;
    }
    for (name, value) in fields {
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(name.chars().map(|c| if c.is_whitespace() || matches!(c, '=' | '"') { '_' } else { c }));
        text.push('=');
        let value = text_of(value);
        if value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=')) {
            text.push_str(&Value::from(value).to_string());
        } else {
            text.push_str(&value);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_go_behind_texts_and_into_objects() {
        let fields = [("trace_id".to_owned(), json!("ab12")), ("note".to_owned(), json!("two words")), ("n".to_owned(), json!([1]))];
        for (text, expected) in [
            ("paid", r#"paid trace_id=ab12 note="two words" n=[1]"#),
            ("", r#"trace_id=ab12 note="two words" n=[1]"#),
            (r#"{"a":1.50, "note":"mine"} "#, r#"{"a":1.50, "note":"mine","trace_id":"ab12","n":[1]}"#),
            ("{}", r#"{"trace_id":"ab12","note":"two words","n":[1]}"#),
            ("{not json}", r#"{not json} trace_id=ab12 note="two words" n=[1]"#),
        ] {
            assert_eq!(with_fields(text.to_owned(), &fields), expected, "{text}");
        }
        assert_eq!(with_fields("x".to_owned(), &[]), "x");
    }

    #[test]
    fn objects_are_flattened_and_names_become_labels() {
        let mut fields = Vec::new();
        let Value::Object(object) = json!({"a": {"b": {"c": 1}, "d": null}, "e": [{"f": 1}], "g": {}}) else { unreachable!() };
        flatten("", object, &mut fields);
        assert_eq!(fields, [("a.b.c".to_owned(), json!(1)), ("e".to_owned(), json!([{"f": 1}])), ("g".to_owned(), json!({}))]);
        assert_eq!(["service.name", "k8s.pod-name", "9lives"].map(label_name), ["app", "k8s_pod_name", "_9lives"]);
        assert!(is_within("host.os.name", "host") && is_within("host", "host") && !is_within("hostname", "host"));
    }
}
