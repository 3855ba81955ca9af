//! Models and pools in the configuration: their mistakes are told at the start.

use breakerbox::Settings;
use breakerbox::config::{ConfigError, PoolChoice};
use breakerbox::model::Api;

fn load(text: &str) -> Result<Settings, ConfigError> {
    Settings::loader().bare().toml(text).load()
}

fn model(name: &str, api: &str, more: &str) -> String {
    format!(
        "[dependencies.{name}]\nkind = \"model\"\napi = \"{api}\"\nurl = \"https://{name}.example/v1\"\n{more}\n"
    )
}

fn pool(members: &str) -> String {
    format!("[dependencies.chat]\nkind = \"pool\"\nmembers = {members}\n")
}

fn fallback(owner: &str, name: &str, more: &str) -> String {
    format!("[[dependencies.{owner}.fallback]]\nkind = \"dependency\"\nname = \"{name}\"\n{more}\n")
}

#[test]
fn llm_16_cfg_1_mistakes_of_models_and_pools_are_told_at_the_start() {
    let (gpt, claude) = (model("gpt", "openai", ""), model("claude", "anthropic", ""));
    let keyed = |name: &str| model(name, "openai", "key = \"sk-secret\"");
    for (text, key, reason) in [
        (
            gpt.clone() + &fallback("gpt", "claude", "") + &claude,
            "dependencies.gpt.fallback[0].name",
            "its api is anthropic, and that of gpt is openai",
        ),
        (
            gpt.clone() + &claude + &pool("[\"gpt\", \"claude\"]"),
            "dependencies.chat.members",
            "claude is anthropic, and gpt is openai",
        ),
        (
            claude.clone() + &pool("[\"claud\"]"),
            "dependencies.chat.members",
            "did you mean claude?",
        ),
        (
            gpt.clone() + &pool("[\"gpt\", \"chat\"]"),
            "dependencies.chat.members",
            "chat is neither a model nor an HTTP service",
        ),
        (
            gpt.clone() + &pool("[\"gpt\", \"gpt\"]"),
            "dependencies.chat.members",
            "a member is named twice",
        ),
        (
            gpt.clone() + &model("other", "openai", "") + &pool("[\"gpt\", \"other\"]"),
            "dependencies.chat.members",
            "no key of their own, and different origins",
        ),
        (
            gpt.clone() + &fallback("gpt", "chat", "") + &keyed("other") + &pool("[\"other\"]"),
            "dependencies.gpt.fallback[0].name",
            "a pool is no fallback",
        ),
        (
            gpt.clone() + "[[dependencies.gpt.fallback]]\nkind = \"fixed\"\nbody = \"{}\"\n",
            "dependencies.gpt.fallback[0].kind",
            "it would answer in place of a model",
        ),
        (
            "[dependencies.gpt]\nkind = \"model\"\nurl = \"http://a\"\n".to_owned(),
            "dependencies.gpt.api",
            "kind = \"model\" needs it",
        ),
        (
            "[dependencies.web]\nkind = \"http\"\nurl = \"http://a\"\ntimeout.gap = \"1s\"\n"
                .to_owned(),
            "dependencies.web.timeout.gap",
            "it applies to kind = \"model\"",
        ),
    ] {
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(key), "{text}\n{error}");
        assert!(error.contains(reason), "{text}\n{error}");
        assert!(!error.contains("sk-secret"), "{error}");
    }
}

#[test]
fn llm_17_llm_21_good_models_and_pools_are_read() {
    let text = model(
        "gpt",
        "openai",
        "key = \"sk-secret\"\nmodel = { \"*\" = \"large\", fast = \"small\" }\n\
         callers_retry = true\ntimeout = { first_token = \"20s\", gap = \"off\" }\n\
         breaker.probe_stream = \"3s\"",
    ) + &fallback("gpt", "spare", "on = [\"too_long\"]")
        + &model("spare", "openai", "key = \"sk-other\"\nmodel = \"one\"")
        + &pool("[\"gpt\", \"spare\"]")
        + "choose = \"least_busy\"\n";
    let settings = load(&text).unwrap();
    let gpt = settings.dependencies["gpt"].model.as_ref().unwrap();
    assert_eq!(gpt.api, Api::OpenAi);
    assert_eq!(gpt.names["*"], "large");
    assert_eq!(settings.dependencies["gpt"].settings.timeout.gap, None);
    assert_eq!(gpt.probe_stream.as_secs(), 3);
    let spare = settings.dependencies["spare"].model.as_ref().unwrap();
    assert_eq!(spare.names["*"], "one");
    let chat = settings.dependencies["chat"].pool.as_ref().unwrap();
    assert_eq!(chat.choose, PoolChoice::LeastBusy);
    assert_eq!(chat.members, ["gpt", "spare"]);
    // SEC-1: no key is shown.
    let shown = format!("{:?} {settings:?}", settings.effective());
    assert!(!shown.contains("sk-secret") && !shown.contains("sk-other"));
}
