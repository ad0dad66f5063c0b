//! Go's `fmt` for what templates use.

use super::value::{Value, go_e, go_f, go_g};

/// Widest field.
const MAX_WIDTH: usize = 1_000;

/// Go's `fmt.Sprint`: a space only between two values that are no text.
pub(super) fn print(arguments: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in arguments.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| arguments.get(before));
        if before.is_some_and(|before| !matches!((before, value), (Value::Text(_), _) | (_, Value::Text(_)))) {
            text.push(' ');
        }
        text.push_str(&value.show());
    }
    text
}

/// Go's `fmt.Sprintf` for what templates use.
pub(super) fn printf(arguments: &[Value]) -> Result<String, String> {
    let [format, rest @ ..] = arguments else { return Err("printf needs a format".to_owned()) };
    let mut values = rest.iter();
    let mut text = String::new();
    let mut letters = format.text()?.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = letters.next_if(|next| "-+0 #".contains(*next)) {
            flags.push(flag);
        }
        let digits = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut number = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                number.push(digit);
            }
            number.parse::<usize>().ok().map(|number| number.min(MAX_WIDTH))
        };
        let width = digits(&mut letters).unwrap_or(0);
        let precision = letters.next_if_eq(&'.').map(|_| digits(&mut letters).unwrap_or(0));
        let Some(verb) = letters.next() else {
            text.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            text.push('%');
            continue;
        }
        let shown = values.next().map_or_else(|| format!("%!{verb}(MISSING)"), |value| verb_text(verb, value, precision, &flags));
        text.push_str(&padded(shown, width, &flags));
    }
    let extra: Vec<String> = values.map(|value| format!("{}={}", value.kind(), value.show())).collect();
    if !extra.is_empty() {
        text.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(text)
}

fn verb_text(verb: char, value: &Value, precision: Option<usize>, flags: &str) -> String {
    let wrong = || format!("%!{verb}({}={})", value.kind(), value.show());
    let signed = |text: String| if flags.contains('+') && !text.starts_with(['-', '+']) { format!("+{text}") } else { text };
    match (verb, value) {
        ('v', Value::Float(number)) => signed(go_g(*number, precision)),
        ('v', value) => value.show(),
        ('s', Value::Text(text)) => precision.map_or_else(|| text.clone(), |most| text.chars().take(most).collect()),
        ('q', Value::Text(text)) => format!("{text:?}"),
        ('d', Value::Int(number)) => signed(number.to_string()),
        ('t', Value::Bool(flag)) => flag.to_string(),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('f' | 'F', Value::Float(number)) => signed(go_f(*number, precision.unwrap_or(6))),
        ('e', Value::Float(number)) => signed(go_e(*number, precision.unwrap_or(6))),
        ('g', Value::Float(number)) => signed(go_g(*number, precision)),
        ('s', Value::Map(_) | Value::List(_)) => value.show(),
        _ => wrong(),
    }
}

fn padded(text: String, width: usize, flags: &str) -> String {
    let missing = width.saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    if flags.contains('-') {
        return text + &" ".repeat(missing);
    }
    if flags.contains('0') && !text.is_empty() {
        let (sign, digits) = if text.starts_with(['-', '+']) { text.split_at(1) } else { ("", text.as_str()) };
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    " ".repeat(missing) + &text
}
