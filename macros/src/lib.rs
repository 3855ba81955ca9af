//! The attribute of Breakerbox, `#[protected]`. It is documented where it is used from: in the
//! package `breakerbox`.
//!
//! It reads a function (`parse`) and writes another one around its body (`expand`). It decides
//! nothing about calls: the functions that the expansion calls are in `breakerbox-actors`.

mod expand;

mod parse;

use proc_macro::TokenStream;
use quote::ToTokens;
use syn::parse_macro_input;

/// It is documented in the package `breakerbox`.
#[proc_macro_attribute]
pub fn protected(options: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as parse::Function);
    let options = syn::parse::<parse::Options>(options);
    let expanded = options.and_then(|options| expand::expand(&options, &function));
    match expanded {
        Ok(tokens) => tokens.into(),
        // With the function as it is, so that what uses it is not in error too.
        Err(error) => {
            let mut tokens = error.into_compile_error();
            function.to_tokens(&mut tokens);
            tokens.into()
        }
    }
}
