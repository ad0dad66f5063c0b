//! What went wrong, down to its first cause.

use std::error::Error;

/// An error with its causes, in one line.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// As [`causes`], without the URL: it may hold credentials.
pub(crate) fn without_url(error: reqwest::Error) -> String {
    causes(&error.without_url())
}
