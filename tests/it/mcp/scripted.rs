//! A scripted server that misbehaves on request.

use std::path::{Path, PathBuf};

use breakerbox::mcp::McpSettings;

use crate::tools;

/// The effect of each tool of the server, besides answering.
///
/// - `echo`: answers with its text, after `wait` milliseconds if given.
/// - `hang`: never answers.
/// - `busy`: answers after so many milliseconds, in which the server reads nothing.
/// - `exit`: ends the process with a status, before it answers.
/// - `delete`, `once`: end the process on the first call, and answer later ones.
/// - `last`: answers with so many bytes, and ends the process then.
/// - `garbage`: writes so many lines that are no messages, then answers.
/// - `long_line`: answers with so many bytes.
/// - `flood`: writes so many lines to standard error, then answers.
/// - `grow`: adds a tool to the list, and announces the change.
const SERVER: &str = r#"
import { createInterface } from "node:readline";
import { appendFileSync, existsSync } from "node:fs";

const folder = process.env.FOLDER;
const note = (text) => appendFileSync(`${folder}/notes`, text + "\n");
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const tools = [
  ["echo", { readOnlyHint: true }], ["hang", { readOnlyHint: true }], ["busy", {}], ["exit", {}], ["delete", { idempotentHint: true }],
  ["garbage", { readOnlyHint: true }], ["long_line", { readOnlyHint: true }], ["flood", { readOnlyHint: true }],
  ["write", {}], ["once", {}], ["grow", {}], ["last", {}],
].map(([name, annotations]) => ({ name, annotations, inputSchema: { type: "object" } }));
const text = (text) => ({ content: [{ type: "text", text }] });
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function call(name, given) {
  note(`call ${name}`);
  switch (name) {
    case "hang":
      return new Promise(() => {});
    case "busy":
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, given.wait);
      return text("done");
    case "delete":
    case "once":
      if (existsSync(`${folder}/died`)) return text("done");
      appendFileSync(`${folder}/died`, "");
      process.exit(1);
    case "exit":
      process.stderr.write(`last words: ${process.env.API_KEY}\n`);
      process.exit(given.status ?? 1);
    case "last":
      return text("x".repeat(given.bytes));
    case "garbage":
      for (let line = 0; line < given.lines; line++) console.log(`garbage ${line}`);
      return text("garbage");
    case "long_line":
      return text("x".repeat(given.bytes));
    case "flood":
      for (let line = 0; line < given.lines; line++) {
        if (!process.stderr.write(`flood ${line} ${"y".repeat(200)} ${process.env.API_KEY}\n`))
          await new Promise((done) => process.stderr.once("drain", done));
      }
      return text("flooded");
    case "grow":
      tools.push({ name: "grown", inputSchema: { type: "object" }, annotations: { readOnlyHint: true } });
      say({ jsonrpc: "2.0", method: "notifications/tools/list_changed" });
      return text("grown");
    default:
      await sleep(given.wait ?? 0);
      return text(given.text ?? name);
  }
}

async function answer({ id, method, params }) {
  switch (method) {
    case "initialize":
      return { protocolVersion: "2025-11-25", capabilities: { tools: { listChanged: true } },
        serverInfo: { name: "scripted", version: "1" } };
    case "tools/list":
      return { tools };
    case "tools/call":
      return call(params.name, params.arguments ?? {});
  }
}

note(`start ${process.pid}`);
for (let line = 0; line < (process.env.GREETING ?? 0); line++) console.log(`hello ${line}`);
if (process.env.MODE === "silent") setInterval(() => {}, 1000);
else {
  createInterface({ input: process.stdin }).on("line", async (line) => {
    const message = JSON.parse(line);
    if (message.id === undefined) {
      note(`${message.method} ${message.params?.requestId ?? ""}`);
      if (message.method === "notifications/initialized" && process.env.MODE === "exit") {
        setTimeout(() => process.exit(0), 20);
      }
      return;
    }
    const result = await answer(message);
    if (result === undefined) say({ jsonrpc: "2.0", id: message.id, error: { code: -32601, message: "unknown" } });
    else if (message.params?.name === "last") {
      const answer = JSON.stringify({ jsonrpc: "2.0", id: message.id, result });
      process.stdout.write(answer + "\n", () => process.exit(0));
    } else say({ jsonrpc: "2.0", id: message.id, result });
  }).on("close", () => process.exit(0));
}
"#;

/// The settings of the server. `None` if Node is not installed.
pub(super) fn server(folder: &Path) -> Option<McpSettings> {
    tools::find(&["node"])?;
    let program: PathBuf = folder.join("server.mjs");
    std::fs::write(&program, SERVER).unwrap();
    let settings = McpSettings::stdio("node", [program.to_string_lossy()]);
    Some(settings.env("FOLDER", folder.to_string_lossy()))
}

/// The lines that the server noted.
pub(super) fn notes(folder: &Path) -> Vec<String> {
    let notes = std::fs::read_to_string(folder.join("notes")).unwrap_or_default();
    notes.lines().map(str::to_owned).collect()
}
