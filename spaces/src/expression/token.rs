//! Division of a formula's text into tokens.

/// Position of an error in characters, counted from 1, and its message.
pub(super) type Failure = (usize, String);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Integer(i128),
    Real(f64),
    Text(String),
    Name(String),
    Symbol(&'static str),
    End,
}

/// Symbols of the language, the longer ones first, so that `//` is not read as two `/`.
const SYMBOLS: [&str; 18] =
    ["//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "<", ">", "(", ")", "[", "]", ",", ";"];

/// Divides a text into tokens, each with its position. The last one is [`Token::End`].
pub(super) fn tokenize(text: &str) -> Result<Vec<(usize, Token)>, Failure> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let (start, c) = (i, chars[i]);
        let token = if c.is_whitespace() {
            i += 1;
            continue;
        } else if c.is_ascii_digit()
            || (c == '.' && chars.get(i + 1).is_some_and(char::is_ascii_digit))
        {
            number(&chars, &mut i)?
        } else if c.is_ascii_alphabetic() || c == '_' {
            while i < chars.len()
                && (chars[i].is_ascii_alphanumeric() || chars[i] == '_' || chars[i] == '.')
            {
                i += 1;
            }
            Token::Name(chars[start..i].iter().collect())
        } else if c == '\'' || c == '"' {
            quoted(&chars, &mut i)?
        } else {
            let rest: String = chars[i..chars.len().min(i + 2)].iter().collect();
            let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) else {
                return Err((start + 1, format!("`{c}` means nothing here")));
            };
            i += symbol.len();
            Token::Symbol(symbol)
        };
        tokens.push((start + 1, token));
    }
    tokens.push((chars.len() + 1, Token::End));
    Ok(tokens)
}

fn number(chars: &[char], i: &mut usize) -> Result<Token, Failure> {
    let start = *i;
    let digits = |i: &mut usize| {
        while *i < chars.len() && chars[*i].is_ascii_digit() {
            *i += 1;
        }
    };
    let mut real = false;
    digits(i);
    if chars.get(*i) == Some(&'.') {
        real = true;
        *i += 1;
        digits(i);
    }
    if matches!(chars.get(*i), Some('e' | 'E')) {
        let sign = usize::from(matches!(chars.get(*i + 1), Some('+' | '-')));
        if chars.get(*i + 1 + sign).is_some_and(char::is_ascii_digit) {
            real = true;
            *i += 1 + sign;
            digits(i);
        }
    }
    let text: String = chars[start..*i].iter().collect();
    if real {
        match text.parse::<f64>() {
            Ok(r) if r.is_finite() => Ok(Token::Real(r)),
            _ => Err((start + 1, format!("`{text}` is no finite number"))),
        }
    } else {
        match text.parse::<i128>() {
            Ok(n) => Ok(Token::Integer(n)),
            Err(_) => Err((start + 1, format!("`{text}` is beyond 64 bits"))),
        }
    }
}

fn quoted(chars: &[char], i: &mut usize) -> Result<Token, Failure> {
    let (start, quote) = (*i, chars[*i]);
    let mut text = String::new();
    *i += 1;
    loop {
        let Some(&c) = chars.get(*i) else {
            return Err((start + 1, "the text has no closing quote".to_owned()));
        };
        *i += 1;
        match c {
            c if c == quote => return Ok(Token::Text(text)),
            '\\' => {
                let escaped = chars.get(*i).copied();
                *i += 1;
                match escaped {
                    Some('n') => text.push('\n'),
                    Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                    _ => {
                        return Err((
                            *i - 1,
                            "only \\\\, \\', \\\" and \\n may be escaped".to_owned(),
                        ));
                    }
                }
            }
            c => text.push(c),
        }
    }
}
