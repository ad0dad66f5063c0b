//! YAML as a tree that knows its lines, so that every mistake of a file can be told with its place.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A value; scalars keep the text that was written.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Scalar(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

pub(super) fn line<T>(of: &Spanned<T>) -> u64 {
    of.referenced.line()
}

/// Reads a document. A file without content is `Null`.
///
/// # Errors
/// Line and words.
pub(super) fn read(text: &str) -> Result<Spanned<Node>, (u64, String)> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let told = error.without_snippet().to_string();
        (line, told.lines().next().unwrap_or("is not valid YAML").to_owned())
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Node::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(pair) = map.next_entry()? {
            all.push(pair);
        }
        Ok(Node::Map(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_scalars_survive() {
        let tree = read("a: 1\nb:\n  - x: \"yes\"\n    y: 1.50\n  - ~\nc: |\n  two\n  lines\n").unwrap();
        let Node::Map(map) = &tree.value else { panic!("{tree:?}") };
        let places: Vec<(&str, u64)> = map.iter().map(|(key, _)| (key.value.as_str(), line(key))).collect();
        assert_eq!(places, [("a", 1), ("b", 2), ("c", 6)]);
        assert!(matches!(&map[0].1.value, Node::Scalar(text) if text == "1"));
        let Node::List(items) = &map[1].1.value else { panic!() };
        assert_eq!(line(&items[0]), 3);
        assert!(matches!(items[1].value, Node::Null));
        assert!(matches!(&map[2].1.value, Node::Scalar(text) if text == "two\nlines\n"));
        assert_eq!(read("a: 1\na: 2\n").unwrap_err().0, 2);
        assert!(read("a: [1").is_err());
    }
}
