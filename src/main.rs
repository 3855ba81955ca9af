//! The command `breakerbox`: reads the arguments, runs one command, ends with its exit code.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 130 interrupted. Results go to
//! standard output, errors to standard error.

mod check;

mod demo;

mod operator;

mod replay;

mod serve;

mod simulated;

use std::io::{IsTerminal as _, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use breakerbox::telemetry::{Format, Telemetry};
use clap::{CommandFactory as _, Parser, Subcommand};

/// Actor-based supervision for the calls that a program makes to things it does not control.
#[derive(Debug, Parser)]
#[command(name = "breakerbox", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Breaks three simulated dependencies one after the other and shows how all recover
    ///
    /// Needs no network and no configuration: it starts three HTTP servers on loopback ports,
    /// lets agents call them, and checks itself that every call is accounted for. Log lines
    /// appear on standard error where RUST_LOG is set. A gateway and an admin side are open on
    /// loopback ports too; it prints where. BREAKERBOX__ADMIN__TOKEN allows changes there.
    Demo {
        /// What is shown
        #[arg(long, value_enum, default_value_t = Scenario::Outages)]
        scenario: Scenario,
        /// Takes a fifth of the time: about 5 seconds instead of 20, or 12 instead of 60
        #[arg(long)]
        fast: bool,
        /// Goes on with everything running afterwards, until ctrl-c; for the scenario outages
        #[arg(long)]
        stay: bool,
    },
    /// The demo's own knowledge-graph server, on standard input and output
    #[command(hide = true, name = demo::research::MEMORY_SERVER)]
    MemoryServer,
    /// Runs the sidecar: protects HTTP services for a program in any language
    ///
    /// Without a configuration of your own it starts three simulated dependencies on loopback.
    /// SIGHUP and changed files are taken over while it runs; SIGTERM and ctrl-c let requests in
    /// flight end first. It prints the addresses it listens on.
    Serve {
        /// The folder of the files [default: config, if it is there]
        #[arg(long, value_name = "DIR")]
        config: Option<PathBuf>,
        /// The environment, such as production [default: $BREAKERBOX_ENV or development]
        #[arg(long, value_name = "NAME")]
        env: Option<String>,
    },
    /// Validates the configuration and prints every value that holds, with its layer
    Check {
        /// The folder of the files [default: config, if it is there]
        #[arg(long, value_name = "DIR")]
        config: Option<PathBuf>,
        /// The environment, such as production [default: $BREAKERBOX_ENV or development]
        #[arg(long, value_name = "NAME")]
        env: Option<String>,
    },
    /// Runs a recorded trace through other settings and shows when the breakers would have moved
    ///
    /// Compares the settings that it was recorded with to those of a configuration, or of two.
    /// No time passes and nothing is called.
    Replay(replay::Arguments),
    /// Shows how the dependencies of a running Breakerbox are
    Status(operator::Status),
    /// Refuses every call to a dependency, until it ends or is closed
    Open(operator::Order),
    /// Closes a dependency's breaker, and takes off whatever an operator set
    Close(operator::Order),
    /// Lets every call through and records nothing, until it ends or is closed
    Disable(operator::Order),
    /// Lets every call through and only measures, until it ends or is closed
    Shadow(operator::Order),
    /// Closes a dependency's breaker and sets its counters to zero
    Reset(operator::Order),
    /// Shows what has happened in a running Breakerbox
    Events(operator::Events),
    /// Prints the completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Prints a man page
    Man {
        /// The page of one command instead of that of all
        command: Option<String>,
    },
}

/// What the demo shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Three dependencies break one after the other, and all recover
    Outages,
    /// An agent system with fifty callers: an index that fails, a server that is killed, a quota
    /// that is used up, a configuration that is broken
    Agents,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done = 0,
    Failed = 1,
    WrongUse = 2,
    Interrupted = 130,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(end as u8)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to be told when even this cannot be written.
            let _ = error.print();
            let wrong = error.use_stderr();
            return if wrong { End::WrongUse } else { End::Done }.into();
        }
    };
    let (mut out, mut err) = (stdout(), stderr());
    let end = match arguments.command {
        Command::Demo {
            scenario,
            fast,
            stay,
        } => start_demo(scenario, fast, stay, &mut out, &mut err),
        Command::MemoryServer => serve_memory(&mut err),
        Command::Serve { config, env } => start_serve(config, env, &mut out, &mut err),
        Command::Check { config, env } => check::run(config, env, &mut out, &mut err),
        Command::Replay(arguments) => replay::run(&arguments, &mut out, &mut err),
        Command::Status(status) => operator::status(&status, &mut out, &mut err),
        Command::Open(order) => operator::operate("open", &order, &mut out, &mut err),
        Command::Disable(order) => operator::operate("disable", &order, &mut out, &mut err),
        Command::Shadow(order) => operator::operate("shadow", &order, &mut out, &mut err),
        Command::Close(order) => operator::operate("close", &order, &mut out, &mut err),
        Command::Reset(order) => operator::operate("reset", &order, &mut out, &mut err),
        Command::Events(events) => operator::events(&events, &mut out, &mut err),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "breakerbox", &mut text);
            out.write_all(&text).map(|()| End::Done)
        }
        Command::Man { command } => write_man_page(command.as_deref(), &mut out, &mut err),
    };
    let end = end.unwrap_or_else(|error| {
        // Whoever closes a pipe has read enough, and need not be told.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            // Standard error may be gone too.
            let _ = writeln!(
                err,
                "breakerbox: standard output cannot be written: {error}"
            );
        }
        End::Failed
    });
    end.into()
}

/// Its standard output is the protocol's.
fn serve_memory(err: &mut dyn Write) -> std::io::Result<End> {
    let Some(file) = std::env::var_os("MEMORY_FILE_PATH") else {
        writeln!(
            err,
            "breakerbox: MEMORY_FILE_PATH is not set, allowed: the path of a file"
        )?;
        return Ok(End::WrongUse);
    };
    let input = std::io::stdin().lock();
    breakerbox::agents::fakes::memory::serve(input, stdout().lock(), file.as_ref())?;
    Ok(End::Done)
}

fn start_demo(
    scenario: Scenario,
    fast: bool,
    stay: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> std::io::Result<End> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("RUST_LOG")
        && let Err(error) = Telemetry::init(Format::Auto)
    {
        writeln!(err, "breakerbox: {error}")?;
        return Ok(End::WrongUse);
    }
    let colour = stdout().is_terminal() && !set("NO_COLOR");
    if scenario == Scenario::Agents {
        if stay {
            writeln!(err, "breakerbox: --stay is for the scenario outages only")?;
            return Ok(End::WrongUse);
        }
        let tempo = if fast {
            demo::research::FAST
        } else {
            demo::research::USUAL
        };
        return actix::System::new().block_on(demo::research::run(tempo, colour, out, err));
    }
    let pace = if fast { demo::FAST } else { demo::USUAL };
    actix::System::new().block_on(demo::run(pace, stay, colour, out, err))
}

/// The page of all, which names the commands, or that of one.
fn write_man_page(
    command: Option<&str>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> std::io::Result<End> {
    let mut all = Arguments::command();
    // Then each command knows its whole name.
    all.build();
    let page = match command {
        None => all,
        Some(name) => match all.find_subcommand(name) {
            Some(one) => one.clone(),
            None => {
                writeln!(err, "breakerbox: there is no command {name:?}")?;
                return Ok(End::WrongUse);
            }
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    out.write_all(&text)?;
    Ok(End::Done)
}

fn start_serve(
    config: Option<PathBuf>,
    env: Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> std::io::Result<End> {
    if let Err(error) = Telemetry::init(Format::Auto) {
        writeln!(err, "breakerbox: {error}")?;
        return Ok(End::WrongUse);
    }
    actix::System::new().block_on(serve::run(config, env, out, err))
}
