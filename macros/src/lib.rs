//! The attribute of Breakerbox, `#[protected]`, documented in the package `breakerbox`, from which
//! it is used.
//!
//! It parses a function (`parse`) and generates another one around its body (`expand`). It decides
//! nothing about calls: the expansion calls functions of `breakerbox-actors`.

mod expand;

mod parse;

use proc_macro::TokenStream;
use quote::ToTokens;
use syn::parse_macro_input;

/// Documented in the package `breakerbox`.
#[proc_macro_attribute]
pub fn protected(options: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as parse::Function);
    let options = syn::parse::<parse::Options>(options);
    let expanded = options.and_then(|options| expand::expand(&options, &function));
    match expanded {
        Ok(tokens) => tokens.into(),
        // Keeps the function as it is, so that code that uses it gets no further errors.
        Err(error) => {
            let mut tokens = error.into_compile_error();
            function.to_tokens(&mut tokens);
            tokens.into()
        }
    }
}
