//! Parsing of the attribute, and of the function under it.
//!
//! Each mistake is an error at its own position that lists the allowed values. The combination of
//! function and options is not checked here.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{
    AttrStyle, Attribute, Error, Expr, ExprClosure, ExprPath, Ident, Lit, LitStr, Path, Result,
    Signature, Token, Visibility, braced,
};

/// An async function, or a method.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    /// Tokens between the braces.
    pub(crate) body: TokenStream,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let begins = input.peek(Token![fn])
            || input.peek(Token![async])
            || input.peek(Token![const])
            || input.peek(Token![unsafe])
            || input.peek(Token![extern]);
        if !begins {
            return Err(input.error("`protected` goes on an async function or method"));
        }
        let signature: Signature = input.parse()?;
        if input.peek(Token![;]) {
            return Err(Error::new_spanned(
                &signature,
                "`protected` needs a body: put it on the method where it is implemented",
            ));
        }
        let content;
        braced!(content in input);
        let inner = content.call(Attribute::parse_inner)?;
        attributes.extend(inner.into_iter().map(|attribute| Attribute {
            style: AttrStyle::Outer,
            ..attribute
        }));
        Ok(Self {
            attributes,
            visibility,
            signature,
            body: content.parse()?,
        })
    }
}

impl ToTokens for Function {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self {
            attributes,
            visibility,
            signature,
            body,
        } = self;
        tokens.extend(quote!(#(#attributes)* #visibility #signature { #body }));
    }
}

/// Source of the client that the calls go through.
pub(crate) enum Handle {
    /// The ambient runtime, with the name of the dependency.
    Ambient(LitStr),
    /// The given runtime, with the name of the dependency.
    Runtime(LitStr, Expr),
    /// The given client, for its own dependency.
    Client(Expr),
}

/// Fallback of the function.
pub(crate) enum Fallback {
    /// A function with the same arguments.
    Path(ExprPath),
    /// A closure with the same arguments.
    Closure(ExprClosure),
}

impl Fallback {
    pub(crate) fn tokens(&self) -> &dyn ToTokens {
        match self {
            Self::Path(path) => path,
            Self::Closure(closure) => closure,
        }
    }
}

/// All options of the attribute.
pub(crate) struct Options {
    pub(crate) handle: Handle,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idempotent: Option<Span>,
    pub(crate) write: Option<Span>,
    /// A variant of `Priority`.
    pub(crate) priority: Option<Ident>,
    pub(crate) key: Option<Expr>,
    pub(crate) weight: Option<Expr>,
    pub(crate) classify: Option<Expr>,
    /// Path under which the package is known.
    pub(crate) package: Path,
}

const KNOWN: &str = "fallback, timeout, idempotent, write, priority, key, weight, classify, \
                     runtime, client, crate";

/// Options that were read so far.
#[derive(Default)]
struct Draft {
    name: Option<LitStr>,
    seen: Vec<Ident>,
    runtime: Option<Expr>,
    client: Option<(Ident, Expr)>,
    fallback: Option<Fallback>,
    timeout: Option<Duration>,
    idempotent: Option<Span>,
    write: Option<Span>,
    priority: Option<Ident>,
    key: Option<Expr>,
    weight: Option<Expr>,
    classify: Option<Expr>,
    package: Option<Path>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut draft = Draft::default();
        if input.peek(syn::LitStr) {
            draft.name = Some(name(input.parse()?)?);
            comma(input)?;
        }
        while !input.is_empty() {
            if input.peek(syn::LitStr) {
                return Err(input.error("the name of the dependency comes first, and once"));
            }
            option(input, &mut draft)?;
            comma(input)?;
        }
        draft.finish()
    }
}

fn comma(input: ParseStream<'_>) -> Result<()> {
    if input.is_empty() {
        return Ok(());
    }
    input.parse::<Token![,]>().map(drop)
}

/// Reads one option.
fn option(input: ParseStream<'_>, draft: &mut Draft) -> Result<()> {
    let key = input.call(Ident::parse_any)?;
    if draft.seen.contains(&key) {
        return Err(Error::new_spanned(
            &key,
            format!("`{key}` stands here twice"),
        ));
    }
    let word = key.to_string();
    match &*word {
        "idempotent" => draft.idempotent = Some(flag(&key, input)?),
        "write" => draft.write = Some(flag(&key, input)?),
        "fallback" => draft.fallback = Some(fallback(value(&key, input)?)?),
        "timeout" => draft.timeout = Some(duration(&value(&key, input)?)?),
        "priority" => draft.priority = Some(priority(&value(&key, input)?)?),
        "key" => draft.key = Some(value(&key, input)?),
        "weight" => draft.weight = Some(weight(value(&key, input)?)?),
        "classify" => draft.classify = Some(value(&key, input)?),
        "runtime" => draft.runtime = Some(value(&key, input)?),
        "client" => draft.client = Some((key.clone(), value(&key, input)?)),
        "crate" => match value(&key, input)? {
            Expr::Path(path) => draft.package = Some(path.path),
            other => {
                return Err(Error::new_spanned(
                    other,
                    "`crate` is a path, such as `crate = breakerbox`",
                ));
            }
        },
        _ => {
            let message = format!("unknown option `{word}`, allowed are: {KNOWN}");
            return Err(Error::new_spanned(key, message));
        }
    }
    draft.seen.push(key);
    Ok(())
}

fn flag(key: &Ident, input: ParseStream<'_>) -> Result<Span> {
    if input.peek(Token![=]) {
        let message = format!("`{key}` takes no value: it stands there, or does not");
        return Err(input.error(message));
    }
    Ok(key.span())
}

fn value(key: &Ident, input: ParseStream<'_>) -> Result<Expr> {
    if !input.peek(Token![=]) {
        let message = format!("`{key}` needs a value: `{key} = …`");
        return Err(Error::new_spanned(key, message));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

impl Draft {
    fn finish(self) -> Result<Options> {
        let handle = match (self.name, self.client, self.runtime) {
            (Some(_), Some((key, _)), _) => {
                let message = "a client has its dependency's name already: leave the name out, or \
                               the client";
                return Err(Error::new_spanned(key, message));
            }
            (None, Some((key, _)), Some(_)) => {
                let message = "a client has its runtime already: leave `runtime` out";
                return Err(Error::new_spanned(key, message));
            }
            (None, Some((_, client)), None) => Handle::Client(client),
            (Some(name), None, Some(runtime)) => Handle::Runtime(name, runtime),
            (Some(name), None, None) => Handle::Ambient(name),
            (None, None, _) => {
                let message = "which dependency is it? give its name first, such as \
                               `#[protected(\"vector_search\")]`, or a `client`";
                return Err(Error::new(Span::call_site(), message));
            }
        };
        // FBK-2: the fallback of an attribute never answers a write.
        if let (Some(_), Some(fallback)) = (self.write, &self.fallback) {
            let message = "a write is never answered by a fallback: leave one of them out";
            return Err(Error::new_spanned(fallback.tokens(), message));
        }
        Ok(Options {
            handle,
            fallback: self.fallback,
            timeout: self.timeout,
            idempotent: self.idempotent,
            write: self.write,
            priority: self.priority,
            key: self.key,
            weight: self.weight,
            classify: self.classify,
            package: self
                .package
                .unwrap_or_else(|| syn::parse_quote!(::breakerbox)),
        })
    }
}

/// Checks the name by the configuration's rule, because it must appear there too.
fn name(name: LitStr) -> Result<LitStr> {
    let text = name.value();
    let plain = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-".contains(letter)
    };
    let sound = text.starts_with(|letter: char| letter.is_ascii_lowercase())
        && text.len() <= 64
        && text.chars().all(plain);
    if sound {
        return Ok(name);
    }
    let message = format!(
        "no dependency can be called \"{text}\", but by a name of at most 64 lower-case letters, \
         digits, _ and -, a letter first"
    );
    Err(Error::new_spanned(name, message))
}

fn fallback(value: Expr) -> Result<Fallback> {
    match value {
        Expr::Path(path) => Ok(Fallback::Path(path)),
        Expr::Closure(closure) => Ok(Fallback::Closure(closure)),
        other => Err(Error::new_spanned(
            other,
            "a fallback is the path of an async function, or a closure that returns a future",
        )),
    }
}

fn priority(value: &Expr) -> Result<Ident> {
    let variant = match literal(value) {
        Some(Lit::Str(word)) => match &*word.value() {
            "low" => Some("Low"),
            "normal" => Some("Normal"),
            "high" => Some("High"),
            _ => None,
        },
        _ => None,
    };
    let message = "a priority is \"low\", \"normal\" or \"high\"";
    let variant = variant.ok_or_else(|| Error::new_spanned(value, message))?;
    Ok(Ident::new(variant, Span::call_site()))
}

fn weight(value: Expr) -> Result<Expr> {
    if let Some(Lit::Int(number)) = literal(&value)
        && number.base10_parse::<u32>().is_ok_and(|weight| weight == 0)
    {
        let message = "a call weighs 1 at least: leave `weight` out";
        return Err(Error::new_spanned(value, message));
    }
    Ok(value)
}

fn duration(value: &Expr) -> Result<Duration> {
    let span = match literal(value) {
        Some(Lit::Str(text)) => span(&text.value()),
        Some(Lit::Int(seconds)) => seconds.base10_parse().ok().map(Duration::from_secs),
        Some(Lit::Float(seconds)) => {
            let seconds = seconds.base10_parse().ok();
            seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        }
        _ => None,
    };
    let message = "a timeout is a duration above zero such as \"250ms\", \"2s\" or \"1m 30s\", or \
                   a number of seconds";
    span.filter(|span| !span.is_zero())
        .ok_or_else(|| Error::new_spanned(value, message))
}

/// Parses numbers with units, in the configuration's format.
fn span(text: &str) -> Option<Duration> {
    let mut sum: Option<Duration> = None;
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].trim_start();
        let letters = unit
            .find(|letter: char| !letter.is_alphabetic())
            .unwrap_or(unit.len());
        let part = of_unit(number, &unit[..letters])?;
        sum = Some(sum.unwrap_or_default().checked_add(part)?);
        rest = unit[letters..].trim_start();
    }
    sum
}

fn of_unit(number: u64, unit: &str) -> Option<Duration> {
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit {
        "ns" | "nsec" => Some(Duration::from_nanos(number)),
        "us" | "µs" | "usec" => Some(Duration::from_micros(number)),
        "ms" | "msec" | "millis" => Some(Duration::from_millis(number)),
        "s" | "sec" | "secs" | "second" | "seconds" => seconds(1),
        "m" | "min" | "mins" | "minute" | "minutes" => seconds(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => seconds(3600),
        "d" | "day" | "days" => seconds(86_400),
        _ => None,
    }
}

fn literal(value: &Expr) -> Option<&Lit> {
    match value {
        Expr::Lit(literal) => Some(&literal.lit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_the_configuration_reads_it() {
        let ms = |millis| Some(Duration::from_millis(millis));
        assert_eq!(span("250ms"), ms(250));
        assert_eq!(span(" 2 s "), ms(2_000));
        assert_eq!(span("1m 30s"), ms(90_000));
        assert_eq!(span("1h1ms"), ms(3_600_001));
        for wrong in [
            "",
            " ",
            "s",
            "2",
            "2 parsecs",
            "-1s",
            "1.5s",
            "99999999999999999999s",
        ] {
            assert_eq!(span(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_name_is_one_that_the_configuration_takes() {
        let sound = |text: &str| name(LitStr::new(text, Span::call_site())).is_ok();
        assert!(sound("vector_search") && sound("a") && sound("a-1") && sound(&"a".repeat(64)));
        for wrong in ["", "1a", "Vector", "a b", "a.b", "é", "*", &"a".repeat(65)] {
            assert!(!sound(wrong), "{wrong:?}");
        }
    }
}
