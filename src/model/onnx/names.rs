//! Step names: identifiers for configurations, made from the names in a file.

/// Rewrites a node's name to words of `[A-Za-z0-9_]` joined by dots, without a digit at the start:
/// `/body/body.0/Conv` becomes `body.body.0.Conv`. Returns an empty name if no character remains.
pub fn sanitize(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '/' | '.' => {
                if !out.is_empty() && !out.ends_with('.') {
                    out.push('.');
                }
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' => out.push(character),
            _ => out.push('_'),
        }
        // Longer names were hardly written by a person.
        if out.len() >= 200 {
            break;
        }
    }
    while out.ends_with('.') {
        out.pop();
    }
    if out.starts_with(|first: char| first.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::sanitize;

    #[test]
    fn sanitizes() {
        for (name, expected) in [
            ("/body/body.0/a/a.0/Conv", "body.body.0.a.a.0.Conv"),
            ("Conv_12", "Conv_12"),
            ("model/conv1:0", "model.conv1_0"),
            ("//a..b/", "a.b"),
            ("12", "_12"),
            ("größe", "gr__e"),
            ("/", ""),
        ] {
            assert_eq!(sanitize(name), expected);
        }
    }
}
