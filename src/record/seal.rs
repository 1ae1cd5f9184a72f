//! Checksums inside of text files and of lines, which show damage to every single byte.
//!
//! A sealed text stays what it was before: a line of JSON, a JSON object or a TOML document. Its
//! checksum stands at its end and covers every byte before. It excludes accidents, not malice.

/// Number of hexadecimal digits of a checksum.
const DIGITS: usize = 16;

/// Kind of text, which decides how the checksum is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// One JSON object in one line; the checksum is its last field, `sum`.
    Line,
    /// One JSON object over several lines; the checksum is its last field, `checksum`.
    Json,
    /// A TOML document; the checksum is a comment in its last line.
    Toml,
}

/// Condition of a text that may have a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The checksum covers the text.
    Whole,
    /// There is no checksum: an earlier version wrote the text, or its end is damaged.
    Unsealed,
    /// The checksum does not match.
    Damaged,
}

impl Sealed {
    /// Returns the bytes before and after the digits.
    const fn around(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Line => (b",\"sum\":\"", b"\"}"),
            Self::Json => (b",\n  \"checksum\": \"", b"\"\n}\n"),
            Self::Toml => (b"# checksum ", b"\n"),
        }
    }

    /// Returns how many bytes of an unsealed text the checksum replaces: the end of the object.
    fn replaced(self, text: &[u8]) -> usize {
        let end: &[u8] = match self {
            Self::Line => b"}",
            Self::Json => b"\n}",
            Self::Toml => b"",
        };
        if text.ends_with(end) { end.len() } else { 0 }
    }

    /// Appends the checksum to `text`, a whole document without a line feed after its last brace.
    #[must_use]
    pub fn seal(self, mut text: Vec<u8>) -> Vec<u8> {
        text.truncate(text.len() - self.replaced(&text));
        let digits = digits(&text);
        let (before, after) = self.around();
        text.extend_from_slice(before);
        text.extend_from_slice(digits.as_bytes());
        text.extend_from_slice(after);
        text
    }

    /// Verifies the checksum at the end of `text`.
    #[must_use]
    pub fn verify(self, text: &[u8]) -> Condition {
        let (before, after) = self.around();
        let Some(text) = text.strip_suffix(after) else { return Condition::Unsealed };
        let Some((text, found)) = text.len().checked_sub(DIGITS).map(|at| text.split_at(at)) else {
            return Condition::Unsealed;
        };
        match text.strip_suffix(before) {
            Some(text) if digits(text).as_bytes() == found => Condition::Whole,
            Some(_) => Condition::Damaged,
            None => Condition::Unsealed,
        }
    }
}

/// Returns the first digits of the BLAKE3 hash of `text`.
fn digits(text: &[u8]) -> String {
    blake3::hash(text).to_hex()[..DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_texts_stay_what_they_were_and_show_any_damaged_byte() {
        let json = serde_json::json!({"event": "notice", "text": "a \"b\" }", "list": [1, 2.5]});
        let toml = "name = \"x\"\n[request]\nseed = 0\n";
        let texts = [
            (Sealed::Line, serde_json::to_vec(&json).unwrap()),
            (Sealed::Json, serde_json::to_vec_pretty(&json).unwrap()),
            (Sealed::Toml, toml.as_bytes().to_vec()),
        ];
        for (kind, text) in texts {
            assert_eq!(kind.verify(&text), Condition::Unsealed);
            let sealed = kind.seal(text);
            assert_eq!(kind.verify(&sealed), Condition::Whole, "{kind:?}");
            for at in 0..sealed.len() {
                for flip in [1, 0x20, 0x80] {
                    let mut damaged = sealed.clone();
                    damaged[at] ^= flip;
                    assert_ne!(kind.verify(&damaged), Condition::Whole, "{kind:?} at {at}");
                }
            }
            assert_ne!(kind.verify(&sealed[..sealed.len() - 1]), Condition::Whole);
            if kind == Sealed::Toml {
                let text = std::str::from_utf8(&sealed).unwrap();
                assert_eq!(
                    toml::from_str::<toml::Table>(text).unwrap()["name"].as_str(),
                    Some("x")
                );
            } else {
                let read: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
                assert_eq!((&read["text"], &read["list"]), (&json["text"], &json["list"]));
            }
        }
    }
}
