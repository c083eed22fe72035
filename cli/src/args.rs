//! Commands, flags and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::Serialize;

/// Self-hosted cloud functions.
#[derive(Debug, Parser)]
#[command(name = "hanshu", version, max_term_width = 100, propagate_version = false)]
#[command(after_help = "Examples:
  hanshu serve                                   a server on this machine
  hanshu init hello --runtime python             a folder with a function
  hanshu deploy hello && hanshu invoke hello     run it
  hanshu logs hello -f                           watch it

CommandStatus codes: 0 done, 1 the function failed, 2 usage, 3 the platform refused, 4 no server reached.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Settings that every command takes. Also `HANSHU_ENDPOINT`, `HANSHU_SECRET_ID`,
/// `HANSHU_SECRET_KEY`, `HANSHU_NAMESPACE`, and `~/.config/hanshu/config.toml`.
#[derive(Args, Debug)]
pub(crate) struct GlobalArgs {
    /// How to print: `json` is alone on stdout.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
    /// The server, `http://host:port`.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The access key's id.
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) secret_id: Option<String>,
    /// The access key's secret.
    #[arg(long, global = true, value_name = "KEY")]
    pub(crate) secret_key: Option<String>,
    /// The namespace of the functions.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// A profile of ~/.config/hanshu/config.toml.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a server
    #[command(after_help = "Examples:
  hanshu serve                                         SQLite and everything in one process
  hanshu serve --listen 127.0.0.1:0 --data /tmp/h      any free port, another folder
  hanshu serve --database postgres://… --queue redis://… --roles gateway,triggers

Every flag also as HANSHU_… in the environment and as a key of --config FILE.")]
    Serve(ServeArgs),
    /// Makes a folder that deploys as it is
    #[command(after_help = "Example:\n  hanshu init hello --runtime python && hanshu deploy hello")]
    Init(InitArgs),
    /// Deploys everything in DIR/hanshu.toml
    #[command(after_help = "Examples:
  hanshu deploy                        what ./hanshu.toml says
  hanshu deploy shop --function cart   one function of it

Unchanged code is not uploaded again; triggers gone from the file are removed.")]
    Deploy(DeployArgs),
    /// Publishes $LATEST as an immutable version
    #[command(after_help = "Example:\n  hanshu publish hello && hanshu invoke hello --qualifier 1")]
    Publish(FunctionArgs),
    /// Calls a function; stdout is its answer and nothing else
    #[command(after_help = "Examples:
  hanshu invoke hello --data '{\"name\": \"you\"}'
  hanshu invoke hello --data @event.json --log
  echo '{}' | hanshu invoke hello --data -
  hanshu status $(hanshu invoke hello --async) --wait 60

The answer is printed as it came, with a newline at its end if it has none.")]
    Invoke(InvokeArgs),
    /// Shows an invocation: exit 0 succeeded, 1 failed, expired or cancelled, 5 not ended yet
    #[command(after_help = "Example:\n  hanshu status 0190a5d8-… --wait 60")]
    Status(StatusArgs),
    /// Lists ended asynchronous invocations, newest first
    #[command(after_help = "Examples:
  hanshu runs                                     of every function
  hanshu runs hello --state failed,expired --since 1d
  hanshu runs --grep 'connection refused' --limit 20

What the history keeps is set by history.keep_days and history.keep_max of the server.")]
    Runs(RunsArgs),
    /// Cancels an invocation and waits for its end: exit 0 cancelled, 1 it ended otherwise, 5 not
    /// ended yet
    #[command(
        after_help = "Examples:\n  hanshu cancel 0190a5d8-…\n  hanshu cancel 0190a5d8-… --wait 0\n\n\
        A function that runs gets SIGTERM. If it has not ended after pool.cancel_grace_ms of the\n\
        server, its sandbox is stopped."
    )]
    Cancel(CancelArgs),
    /// Runs an ended invocation again, with the input that it had or another one
    #[command(after_help = "Examples:
  hanshu rerun 0190a5d8-…
  hanshu rerun 0190a5d8-… --data '{\"name\": \"you\"}'

Prints the new request id. Inputs are kept for history.inputs_keep_days of the server.")]
    Rerun(RerunArgs),
    /// Prints a function's log
    #[command(after_help = "Examples:
  hanshu logs hello -f                  live
  hanshu logs hello --since 10m
  hanshu logs hello --request-id 0190…")]
    Logs(LogsArgs),
    /// Lists the functions of a namespace
    List,
    /// Shows a function with its versions and triggers
    Show(FunctionArgs),
    /// Deletes a function with its versions and triggers
    Delete(FunctionArgs),
    /// Triggers: list, enable, disable, fire
    #[command(after_help = "Examples:
  hanshu trigger list hello
  hanshu trigger disable hello every-minute
  hanshu trigger fire hello every-minute       runs a timer now")]
    Trigger {
        #[command(subcommand)]
        action: TriggerAction,
    },
    /// Shows queues: waiting, running, oldest age, dead-lettered
    Queues,
    /// Prints the version of this program, and of the server if one answers
    Version,
    /// Prints a completion script
    #[command(after_help = "Example:\n  hanshu completions bash > /etc/bash_completion.d/hanshu")]
    Completions {
        /// The shell to complete for.
        shell: Shell,
    },
}

/// Flags of the server. A flag that is not given is left out, so that the environment or the file
/// sets it.
#[derive(Args, Debug, Serialize)]
pub(crate) struct ServeArgs {
    /// The API's address [default: 127.0.0.1:9000]; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    /// The address of HTTP triggers [default: 127.0.0.1:9080].
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    http_listen: Option<String>,
    /// Where everything is kept [default: ~/.local/share/hanshu].
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    /// What functions run in: auto, docker or process [default: auto].
    #[arg(long, value_name = "KIND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
    /// `sqlite:FILE` or `postgres://…` [default: a file in the data folder].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    /// `redis://…` [default: a table in the database].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    /// all, or some of gateway,controller,triggers,invoker [default: all].
    #[arg(long, value_name = "ROLES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<String>,
    /// The zone of timers that name none [default: UTC].
    #[arg(long, value_name = "ZONE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    /// Listen on other addresses than loopback without TLS.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_plaintext: bool,
    /// error, warn, info, debug or a filter [default: info].
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// human or json [default: human].
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<String>,
    /// A file with these settings and more (docs/operations.md).
    #[arg(long, value_name = "FILE", env = "HANSHU_CONFIG")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// The folder; its last part becomes the function's name.
    pub(crate) dir: PathBuf,
    /// The function's language.
    #[arg(long, value_enum)]
    pub(crate) runtime: InitLanguage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitLanguage {
    Python,
    Nodejs,
    Go,
    Shell,
    Custom,
}

#[derive(Args, Debug)]
pub(crate) struct DeployArgs {
    /// A folder with a hanshu.toml.
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Only this function of it.
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct FunctionArgs {
    /// The function's name.
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct InvokeArgs {
    /// The function's name.
    pub(crate) name: String,
    /// The event: JSON, @FILE, or - for standard input [default: {}].
    #[arg(long, short, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// Do not wait: print the request id alone.
    #[arg(long = "async")]
    pub(crate) asynchronous: bool,
    /// A version's number, or $LATEST.
    #[arg(long, value_name = "Q")]
    pub(crate) qualifier: Option<String>,
    /// Print the end of the function's log on stderr (at most 4 KB).
    #[arg(long, conflicts_with = "asynchronous")]
    pub(crate) log: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// The request id that `invoke --async` printed.
    pub(crate) request_id: String,
    /// How long to wait for the end, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct RunsArgs {
    /// Only of this function.
    pub(crate) name: Option<String>,
    /// Only of this trigger of it.
    #[arg(long, value_name = "TRIGGER", requires = "name")]
    pub(crate) trigger: Option<String>,
    /// Only those that are succeeded, failed, expired or cancelled; several with commas.
    #[arg(long, value_name = "STATES")]
    pub(crate) state: Option<String>,
    /// Ended at or after this: 30s, 10m, 2h, 1d ago, or an RFC 3339 time.
    #[arg(long, value_name = "AGE")]
    pub(crate) since: Option<String>,
    /// Ended before this: 30s, 10m, 2h, 1d ago, or an RFC 3339 time.
    #[arg(long, value_name = "AGE")]
    pub(crate) until: Option<String>,
    /// Only those whose name, id or error contain this text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) grep: Option<String>,
    /// The most invocations to list.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub(crate) limit: usize,
    /// Go on where an earlier list ended.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    /// The request id that `invoke --async` printed.
    pub(crate) request_id: String,
    /// Seconds to wait for the end of an invocation that runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u64,
}

#[derive(Args, Debug)]
pub(crate) struct RerunArgs {
    /// The request id of an ended invocation.
    pub(crate) request_id: String,
    /// Another input: JSON, @FILE, or - for standard input.
    #[arg(long, short, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// The function's name.
    pub(crate) name: String,
    /// Go on with new lines, until Ctrl-C.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only lines of this invocation.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Not older than this: 30s, 10m, 2h, 1d.
    #[arg(long, value_name = "AGE")]
    pub(crate) since: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TriggerAction {
    /// Lists a function's triggers with their state
    List(FunctionArgs),
    /// Switches a trigger on
    Enable(TriggerArgs),
    /// Switches a trigger off, until the next deploy says otherwise
    Disable(TriggerArgs),
    /// Runs a timer now; prints the request id
    Fire(FireArgs),
}

#[derive(Args, Debug)]
pub(crate) struct TriggerArgs {
    /// The function's name.
    pub(crate) name: String,
    /// The trigger; may be left out where the function has one only.
    pub(crate) trigger: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct FireArgs {
    /// The function's name.
    pub(crate) name: String,
    /// The timer; may be left out where the function has one only.
    pub(crate) trigger: Option<String>,
}
