//! Expansion of the function: its body becomes the work of a call.
//!
//! The arguments move into the body if it runs once. If it may run again, or the fallback may need
//! them, each run gets a copy, or borrows what the function has as `&mut`. Generated names cannot clash with the function's own.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Error, ExprClosure, FnArg, GenericArgument, Pat, PatType, PathArguments, Receiver,
    ReceiverKind, Result, ReturnType, Safety, Signature, Type, parse_quote, parse_quote_spanned,
};

use crate::parse::{Fallback, Function, Handle, Options};

/// Returns the function, with its calls routed through its dependency.
pub(crate) fn expand(options: &Options, function: &Function) -> Result<TokenStream> {
    let output = check(&function.signature)?;
    let copies = options.idempotent.is_some() || options.fallback.is_some();
    let mut signature = function.signature.clone();
    let arguments = if copies {
        check_receiver(function.signature.receiver(), options)?;
        name_arguments(&mut signature)
    } else {
        Vec::new()
    };
    signature.output = protected(output, options);
    let lends = copies && lends(&function.signature);
    let work = work(options, function, output, (&arguments, lends));
    let call = call(options, &signature, output, (work, lends), &arguments)?;
    let client = client(options);
    let Function {
        attributes,
        visibility,
        ..
    } = function;
    Ok(quote! {
        #(#attributes)*
        #visibility #signature {
            #client
            #call
        }
    })
}

/// Returns the function's return type, or an error if it cannot be protected.
fn check(signature: &Signature) -> Result<&Type> {
    let refuse = |tokens: &dyn quote::ToTokens, message| Err(Error::new_spanned(tokens, message));
    if let Some(abi) = &signature.abi {
        return refuse(abi, "a function of another language cannot be protected");
    }
    if !matches!(signature.safety, Safety::Default) {
        let message = "an unsafe function cannot be protected: protect one that calls it";
        return refuse(&signature.safety, message);
    }
    if signature.asyncness.is_none() {
        let message = "`protected` goes on async functions: make it an `async fn`";
        return refuse(&signature.fn_token, message);
    }
    match &signature.output {
        ReturnType::Type(_, output) => Ok(output),
        ReturnType::Default => refuse(
            &signature.ident,
            "a function under `protected` must return a `Result`: without it no call could fail",
        ),
    }
}

/// Returns the reason, as text, for needing the arguments more than once.
fn reason(options: &Options) -> &'static str {
    if options.idempotent.is_some() {
        "an idempotent function may run more than once"
    } else {
        "the fallback needs the arguments too"
    }
}

fn check_receiver(receiver: Option<&Receiver>, options: &Options) -> Result<()> {
    let Some(receiver) = receiver else {
        return Ok(());
    };
    let is_reference = match &receiver.kind {
        ReceiverKind::Reference(..) => true,
        ReceiverKind::Typed(_, ty) => matches!(&**ty, Type::Reference(_)),
        _ => false,
    };
    if is_reference {
        return Ok(());
    }
    let message = format!("{}: take `&self` or `&mut self`", reason(options));
    Err(Error::new_spanned(receiver, message))
}

/// Returns true if the body changes something of its caller's: each of its runs borrows it.
fn lends(signature: &Signature) -> bool {
    signature.inputs.iter().any(|argument| match argument {
        FnArg::Receiver(receiver) => match &receiver.kind {
            ReceiverKind::Reference(_, _, mutability) => mutability.is_some(),
            ReceiverKind::Typed(_, ty) => is_mut(ty),
            _ => false,
        },
        FnArg::Typed(PatType { ty, .. }) => is_mut(ty),
    })
}

fn is_mut(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.mutability.is_some())
}

/// An argument that is used more than once.
struct Argument {
    /// Its name in the signature.
    name: Ident,
    /// Its pattern in the body.
    pattern: Pat,
    ty: Type,
}

impl Argument {
    fn copy(&self, package: &syn::Path) -> TokenStream {
        let name = &self.name;
        if is_mut(&self.ty) {
            return quote!(&mut *#name);
        }
        quote_spanned!(self.ty.span()=> #package::attribute::copy(&#name))
    }
}

/// Gives every argument its own name in the signature.
fn name_arguments(signature: &mut Signature) -> Vec<Argument> {
    let mut arguments = Vec::new();
    for argument in &mut signature.inputs {
        let FnArg::Typed(PatType { pat, ty, .. }) = argument else {
            continue;
        };
        let name = match &**pat {
            Pat::Ident(plain) if plain.subpat.is_none() => plain.ident.clone(),
            _ => format_ident!("_arg{}", arguments.len(), span = Span::mixed_site()),
        };
        let pattern = std::mem::replace(&mut **pat, parse_quote!(#name));
        arguments.push(Argument {
            name,
            pattern,
            ty: Type::clone(ty),
        });
    }
    arguments
}

/// Rewrites `Result<T, E>` to `Result<T, CallError<E>>`. If the error type is not written out, as
/// in `io::Result<T>`, the compiler looks it up.
fn protected(output: &Type, options: &Options) -> ReturnType {
    let package = &options.package;
    if let Some(whole) = with_call_error(output, package) {
        return parse_quote!(-> #whole);
    }
    parse_quote_spanned!(output.span()=> -> <#output as #package::attribute::ProtectedReturn>::Protected)
}

fn with_call_error(output: &Type, package: &syn::Path) -> Option<Type> {
    let mut output = output.clone();
    let Type::Path(path) = &mut output else {
        return None;
    };
    let last = path.path.segments.last_mut()?;
    let PathArguments::AngleBracketed(generic) = &mut last.arguments else {
        return None;
    };
    if last.ident != "Result" || generic.args.len() != 2 {
        return None;
    }
    let GenericArgument::Type(error) = generic.args.last_mut()? else {
        return None;
    };
    *error = parse_quote!(#package::CallError<#error>);
    Some(output)
}

/// Returns the body's result type in a form that is legal inside a body: without `impl`.
fn nameable(output: &Type) -> Type {
    struct Infer;

    impl VisitMut for Infer {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            if matches!(ty, Type::ImplTrait(_)) {
                *ty = parse_quote!(_);
            } else {
                visit_mut::visit_type_mut(self, ty);
            }
        }
    }

    let mut output = output.clone();
    Infer.visit_type_mut(&mut output);
    output
}

fn hidden(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// Returns the name of an item. Items are not hygienic: without the prefix, it would hide an item or
/// an argument of the function's own.
fn hidden_item(name: &str) -> Ident {
    hidden(&format!("__breakerbox_{name}"))
}

/// Returns the closure that begins an attempt.
fn work(
    options: &Options,
    function: &Function,
    output: &Type,
    (arguments, lends): (&[Argument], bool),
) -> TokenStream {
    let package = &options.package;
    let body = &function.body;
    let output = nameable(output);
    let result = hidden("result");
    // Gives the compiler the body's return type, as a signature would.
    let body = quote! {
        if let ::core::option::Option::Some(#result) = ::core::option::Option::None::<#output> {
            #[allow(unreachable_code)]
            return #result;
        }
        #body
    };
    let copies = arguments.iter().map(|argument| {
        let (pattern, copy) = (&argument.pattern, argument.copy(package));
        quote!(let #pattern = #copy;)
    });
    if lends {
        quote!(async || { #(#copies)* #body })
    } else if options.idempotent.is_some() {
        quote!(|| { #(#copies)* async move { #body } })
    } else {
        quote!(#package::attribute::once({ #(#copies)* async move { #body } }))
    }
}

/// Looks up the client, or ends the call: without a client, no fallback can run either.
fn client(options: &Options) -> TokenStream {
    let package = &options.package;
    let (client, error, site) = (hidden("client"), hidden("error"), hidden_item("SITE"));
    let (name, own_runtime, found) = match &options.handle {
        Handle::Client(expr) => return quote!(let #client = (#expr).any();),
        Handle::Ambient(name) => (name, false, quote!(#site.client())),
        Handle::Runtime(name, runtime) => (name, true, quote!(#site.client_in(&(#runtime)))),
    };
    quote! {
        static #site: #package::attribute::CallSite = #package::attribute::CallSite::new(
            #name,
            ::core::file!(),
            ::core::line!(),
            #own_runtime,
        );
        #package::attribute::inventory::submit! {
            #package::attribute::CollectedSite(&#site)
        }
        let #client = match #found {
            ::core::result::Result::Ok(#client) => #client,
            ::core::result::Result::Err(#error) => return ::core::result::Result::Err(#error),
        };
    }
}

fn call(
    options: &Options,
    signature: &Signature,
    output: &Type,
    (work, lends): (TokenStream, bool),
    arguments: &[Argument],
) -> Result<TokenStream> {
    let package = &options.package;
    let names = ["client", "options", "work", "value", "unanswered", "answer"];
    let [client, own, begin, value, unanswered, answer] = names.map(hidden);
    let settings = settings(options);
    let judge = match &options.classify {
        None => quote!(#package::attribute::by_result),
        Some(judge) => {
            let output = nameable(output);
            let judged = quote!(::core::marker::PhantomData::<#output>);
            quote_spanned!(judge.span()=> #package::attribute::judge(#judged, #judge))
        }
    };
    let begun = quote! {
        let #own = #settings;
        let #begin = #work;
    };
    let (run, run_with_fallback) = match lends {
        true => (quote!(run_mut_with), quote!(run_mut_with_fallback)),
        false => (quote!(run_with), quote!(run_with_fallback)),
    };
    let Some(fallback) = &options.fallback else {
        return Ok(quote! {
            #begun
            #client.#run(#own, #judge, #begin).await
        });
    };
    let asked = asked(options, fallback, signature, arguments)?;
    let name = match fallback {
        Fallback::Path(path) => quote!(#path).to_string().replace(' ', ""),
        Fallback::Closure(_) => "function".to_owned(),
    };
    Ok(quote! {
        #begun
        match #package::attribute::#run_with_fallback(&#client, #own, #judge, #begin).await {
            ::core::result::Result::Ok(#value) => ::core::result::Result::Ok(#value),
            ::core::result::Result::Err(#unanswered) => {
                if !#unanswered.may_fall_back() {
                    return #unanswered.give_up();
                }
                let #answer = #unanswered.patience().wait(|| #asked).await;
                #unanswered.end(#name, #answer)
            }
        }
    })
}

fn settings(options: &Options) -> TokenStream {
    let package = &options.package;
    let some = quote!(::core::option::Option::Some);
    let timeout = options.timeout.map(|timeout| {
        let (seconds, nanos) = (timeout.as_secs(), timeout.subsec_nanos());
        quote!(timeout: #some(::core::time::Duration::new(#seconds, #nanos)),)
    });
    let idempotent = match options.idempotent {
        Some(_) => quote!(idempotent: #some(true),),
        // CALL-7: the body can run only once, also where an attempt did not begin its work.
        None => quote!(max_attempts: #some(::core::num::NonZeroU32::MIN),),
    };
    let write = options.write.map(|_| quote!(write: #some(true),));
    let priority = options
        .priority
        .as_ref()
        .map(|priority| quote!(priority: #package::attribute::Priority::#priority,));
    let key = options.key.as_ref().map(|key| {
        let key = quote_spanned!(key.span()=> #package::attribute::key(&(#key)));
        quote!(key: #key,)
    });
    let weight = options.weight.as_ref().map(|weight| {
        let weight = quote_spanned!(weight.span()=> #package::attribute::weight(#weight));
        quote!(weight: #weight,)
    });
    quote! {
        #package::attribute::CallOptions {
            #timeout #idempotent #write #priority #key #weight
            ..::core::default::Default::default()
        }
    }
}

/// Returns the call of the fallback with the arguments.
fn asked(
    options: &Options,
    fallback: &Fallback,
    signature: &Signature,
    arguments: &[Argument],
) -> Result<TokenStream> {
    let package = &options.package;
    let unanswered = hidden("unanswered");
    let names = arguments.iter().map(|argument| &argument.name);
    match fallback {
        Fallback::Path(path) => {
            let receiver = signature.receiver().map(|receiver| {
                let this = receiver.self_token;
                quote!(#this,)
            });
            Ok(quote_spanned! {path.span()=>
                #package::attribute::call_fallback(#path, (#receiver #(#names,)*), #unanswered.why())
            })
        }
        Fallback::Closure(closure) => {
            let why = takes_why(closure, arguments.len())?;
            let given = names
                .map(|name| quote!(#name))
                .chain(why.then(|| quote!(#unanswered.why())));
            let given: Vec<TokenStream> = given.collect();
            let (apply, function) = (hidden_item("apply"), hidden("function"));
            let types: Vec<Ident> = (0..given.len()).map(|n| format_ident!("T{n}")).collect();
            let values: Vec<Ident> = (0..given.len()).map(|n| format_ident!("v{n}")).collect();
            // A closure infers the types of its parameters from a signature.
            Ok(quote! {{
                fn #apply<#(#types,)* R>(
                    #(#values: #types,)*
                    #function: impl ::core::ops::FnOnce(#(#types),*) -> R,
                ) -> R {
                    #function(#(#values),*)
                }
                #apply(#(#given,)* #closure)
            }})
        }
    }
}

fn takes_why(closure: &ExprClosure, arguments: usize) -> Result<bool> {
    match closure.inputs.len().checked_sub(arguments) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => {
            let message = format!(
                "this fallback must take the function's arguments without `self`, {arguments} of \
                 them, and may take the error after them"
            );
            Err(Error::new_spanned(closure, message))
        }
    }
}
