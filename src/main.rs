//! The command `breakerbox`: parses the arguments, runs one command, and exits with its code.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 130 interrupted. Results go to
//! standard output, errors to standard error.

mod cli;

use std::io::{self, Write, stderr, stdout};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use cli::demo::Scenario;
use cli::{
    ConfigArgs, ExitReason, advice, check, completion, demo, import, init, man, operator, replay,
    serve,
};

/// Actor-based supervision for the calls that a program makes to things it does not control.
#[derive(Debug, Parser)]
#[command(name = "breakerbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Breaks three simulated dependencies one after the other and shows their recovery
    ///
    /// Needs no network and no configuration: it starts three HTTP servers on loopback ports, lets
    /// agents call them, and verifies that every call is accounted for. With RUST_LOG set, log
    /// lines appear on standard error. A gateway and an admin side listen on loopback ports too;
    /// their addresses are printed. BREAKERBOX__ADMIN__TOKEN allows changes there.
    Demo {
        /// Scenario to run
        #[arg(long, value_enum, default_value_t = Scenario::Outages)]
        scenario: Scenario,
        /// Runs in a fifth of the time: about 5 seconds instead of 20, or 12 instead of 60
        #[arg(long)]
        fast: bool,
        /// Keeps everything running afterwards, until ctrl-c; for the scenario outages
        #[arg(long)]
        stay: bool,
    },
    /// The demo's own knowledge-graph server, on standard input and output
    #[command(hide = true, name = demo::research::MEMORY_SERVER)]
    MemoryServer,
    /// Runs the sidecar: protects HTTP services for a program in any language
    ///
    /// In development without a configuration it starts three simulated dependencies on loopback; a
    /// named directory must have a default.toml. SIGHUP and changed files are applied while it
    /// runs. On SIGTERM and ctrl-c, requests in flight may finish first. It prints the addresses on
    /// which it listens, and where each dependency is called.
    Serve {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Validates the configuration and prints what is set, with its layer
    ///
    /// It refuses what serve would refuse, and warns of settings without effect.
    Check(check::CheckArgs),
    /// Writes a first configuration for one HTTP service
    ///
    /// Without arguments it asks on a terminal. It overwrites nothing.
    Init(init::InitArgs),
    /// Prints the JSON Schema of the configuration, for editors
    ///
    /// A file that begins with `#:schema FILE` is completed and checked by editors that know TOML.
    Schema,
    /// Turns the MCP servers of a client's file into a configuration
    ///
    /// Reads the files of Claude, Cursor and VS Code (mcp.json), and prints commented TOML. What needs a
    /// person's eye is told on standard error: secrets in plain text, references such as ${NAME}, and
    /// what cannot be taken over.
    Import(import::ImportArgs),
    /// Replays a recorded trace with other settings and shows the breakers' changes of state
    ///
    /// Compares the recorded settings with those of a configuration, or those of two
    /// configurations. No time passes and no dependency is called.
    Replay(replay::ReplayArgs),
    /// Shows the state of the dependencies of a running Breakerbox
    Status(operator::Status),
    /// Forces a breaker open: refuses every call, for a time or until it is closed
    Open(operator::OperateArgs),
    /// Closes a breaker and removes any override
    Close(operator::OperateArgs),
    /// Disables a breaker: admits every call and records nothing, for a time or until it is closed
    Disable(operator::OperateArgs),
    /// Admits every call and only measures (shadow mode), for a time or until it is closed
    Shadow(operator::OperateArgs),
    /// Closes a breaker and sets its counters to zero
    Reset(operator::OperateArgs),
    /// Starts a dependency's workers anew, with a fresh restart budget: a parked MCP server, or a sick one
    Restart(operator::OperateArgs),
    /// Shows the events of a running Breakerbox
    Events(operator::Events),
    /// Leaves a note such as "deploy 1.2": a mark on the charts of the dashboard
    Note(operator::NoteArgs),
    /// Shows the replicas of the fleet that a running Breakerbox belongs to
    Fleet(operator::FleetArgs),
    /// Shows the alerts of a running Breakerbox, each with its outage, or acknowledges them
    Alerts(operator::Alerts),
    /// Shows the dead letters of a consumer, puts them back into their queue, or drops them
    ///
    /// It reads the configuration as serve does, and speaks to the NATS servers that it names.
    #[cfg(feature = "fleet")]
    Dead(cli::dead::DeadArgs),
    /// Prints a script by which a shell completes arguments and names of dependencies
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the man page
    Man {
        /// Command to describe [default: all commands, with files, variables and examples]
        command: Option<String>,
    },
}

fn main() -> ExitCode {
    completion::answer_shell(Cli::command);
    let arguments = match Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // If this cannot be written either, no output is left.
            let _ = error.print();
            if let Some(advice) = advice::about(&error) {
                let _ = writeln!(stderr(), "  tip: {advice}");
            }
            let wrong = error.use_stderr();
            return if wrong {
                ExitReason::WrongUse
            } else {
                ExitReason::Done
            }
            .into();
        }
    };
    let (mut out, mut err) = (stdout(), stderr());
    let end = match arguments.command {
        Command::Demo {
            scenario,
            fast,
            stay,
        } => demo::run(scenario, fast, stay, &mut out, &mut err),
        Command::MemoryServer => demo::research::serve_memory(&mut err),
        Command::Serve { config } => serve::run(config, &mut out, &mut err),
        Command::Check(arguments) => check::run(arguments, &mut out, &mut err),
        Command::Init(arguments) => init::run(&arguments, &mut out, &mut err),
        Command::Schema => {
            let written = out.write_all(breakerbox::config::schema().as_bytes());
            written.map(|()| ExitReason::Done)
        }
        Command::Import(arguments) => import::run(&arguments, &mut out, &mut err),
        Command::Replay(arguments) => replay::run(&arguments, &mut out, &mut err),
        Command::Status(status) => operator::status(&status, &mut out, &mut err),
        Command::Open(order) => operator::operate("open", &order, &mut out, &mut err),
        Command::Disable(order) => operator::operate("disable", &order, &mut out, &mut err),
        Command::Shadow(order) => operator::operate("shadow", &order, &mut out, &mut err),
        Command::Close(order) => operator::operate("close", &order, &mut out, &mut err),
        Command::Reset(order) => operator::operate("reset", &order, &mut out, &mut err),
        Command::Restart(order) => operator::operate("restart", &order, &mut out, &mut err),
        Command::Events(events) => operator::events(&events, &mut out, &mut err),
        Command::Note(note) => operator::note(&note, &mut out, &mut err),
        Command::Fleet(args) => operator::fleet(&args, &mut out, &mut err),
        Command::Alerts(alerts) => operator::alerts(&alerts, &mut out, &mut err),
        #[cfg(feature = "fleet")]
        Command::Dead(arguments) => cli::dead::run(arguments, &mut out, &mut err),
        Command::Completions { shell } => completion::write_script(shell, &mut out),
        Command::Man { command } => {
            man::write(Cli::command(), command.as_deref(), &mut out, &mut err)
        }
    };
    let end = end.unwrap_or_else(|error| {
        // A closed pipe means that its reader has read enough: no error message.
        if error.kind() != io::ErrorKind::BrokenPipe {
            // Standard error may be closed too.
            let _ = writeln!(
                err,
                "breakerbox: standard output cannot be written: {error}"
            );
        }
        ExitReason::Failed
    });
    end.into()
}
