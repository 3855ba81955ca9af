//! Fake of the knowledge graph server, for machines without Node.js: the same tools over the same
//! protocol, on standard input and output, with the graph in a file.
//!
//! It adds one tool, `process_id`, so that the process can be killed from outside.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The protocol version of the fake.
const VERSION: &str = "2025-11-25";

/// Serves one client until its input ends. The graph is read from the file and stored in it.
///
/// # Errors  The input, the output or the file cannot be used.
pub fn serve(input: impl BufRead, mut output: impl Write, file: &Path) -> io::Result<()> {
    let mut memory = MemoryGraph::open(file)?;
    for line in input.lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else {
            // Like the real server: a line that is not JSON gets no response.
            continue;
        };
        let Some(id) = message.get("id").cloned() else {
            continue;
        };
        let method = message["method"].as_str().unwrap_or_default();
        let answer = match memory.answer(method, &message["params"])? {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(code) => {
                let error = json!({ "code": code, "message": "Method not found" });
                json!({ "jsonrpc": "2.0", "id": id, "error": error })
            }
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

struct MemoryGraph {
    file: PathBuf,
    entities: Vec<Value>,
    relations: Vec<Value>,
}

/// A tool's result, or the text of its own error.
type Told = Result<Value, String>;

impl MemoryGraph {
    fn open(file: &Path) -> io::Result<Self> {
        let mut memory = Self {
            file: file.to_owned(),
            entities: Vec::new(),
            relations: Vec::new(),
        };
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            let mut item: Value = serde_json::from_str(line)?;
            let kind = item.as_object_mut().and_then(|item| item.remove("type"));
            match kind.as_ref().and_then(Value::as_str) {
                Some("relation") => memory.relations.push(item),
                _ => memory.entities.push(item),
            }
        }
        Ok(memory)
    }

    /// Saves the graph, first to another file: a kill at any time leaves one file complete.
    fn save(&self) -> io::Result<()> {
        let typed = |item: &Value, kind: &str| {
            let mut item = item.clone();
            item["type"] = kind.into();
            item.to_string()
        };
        let entities = self.entities.iter().map(|item| typed(item, "entity"));
        let relations = self.relations.iter().map(|item| typed(item, "relation"));
        let lines: Vec<String> = entities.chain(relations).collect();
        let beside = self.file.with_extension("new");
        fs::write(&beside, lines.join("\n"))?;
        fs::rename(&beside, &self.file)
    }

    fn answer(&mut self, method: &str, params: &Value) -> io::Result<Result<Value, i32>> {
        Ok(Ok(match method {
            "initialize" => json!({
                "protocolVersion": VERSION,
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "memory-server", "version": "0.0.0" },
            }),
            "ping" => json!({}),
            "tools/list" => json!({ "tools": tools() }),
            "tools/call" => {
                let name = params["name"].as_str().unwrap_or_default();
                let told = self.call(name, &params["arguments"]);
                if !is_read(name) && told.is_ok() {
                    self.save()?;
                }
                result(told)
            }
            _ => return Ok(Err(-32601)),
        }))
    }

    fn call(&mut self, name: &str, given: &Value) -> Told {
        match name {
            "create_entities" => {
                let new = add(&mut self.entities, list(given, "entities")?, &["name"]);
                Ok(json!({ "entities": new }))
            }
            "create_relations" => {
                let key = ["from", "to", "relationType"];
                let new = add(&mut self.relations, list(given, "relations")?, &key);
                Ok(json!({ "relations": new }))
            }
            "add_observations" => self.observe(list(given, "observations")?),
            "delete_entities" => {
                let names = list(given, "entityNames")?;
                self.entities.retain(|one| !names.contains(&one["name"]));
                let gone = |one: &Value| names.contains(&one["from"]) || names.contains(&one["to"]);
                self.relations.retain(|one| !gone(one));
                Ok(done())
            }
            "delete_observations" => {
                for deletion in list(given, "deletions")? {
                    let gone = list(&deletion, "observations")?;
                    for entity in self.named(&deletion["entityName"]) {
                        if let Some(kept) = entity["observations"].as_array_mut() {
                            kept.retain(|one| !gone.contains(one));
                        }
                    }
                }
                Ok(done())
            }
            "delete_relations" => {
                let gone = list(given, "relations")?;
                self.relations.retain(|one| !gone.contains(one));
                Ok(done())
            }
            "read_graph" => Ok(self.graph(|_| true)),
            "search_nodes" => {
                let query = given["query"]
                    .as_str()
                    .ok_or("query is required")?
                    .to_lowercase();
                Ok(self.graph(|entity| entity.to_string().to_lowercase().contains(&query)))
            }
            "open_nodes" => {
                let names = list(given, "names")?;
                Ok(self.graph(|entity| names.contains(&entity["name"])))
            }
            "process_id" => Ok(json!({ "process_id": std::process::id() })),
            _ => Err(format!("MCP error -32602: Tool {name} not found")),
        }
    }

    fn named<'m>(&'m mut self, name: &'m Value) -> impl Iterator<Item = &'m mut Value> {
        self.entities
            .iter_mut()
            .filter(move |one| one["name"] == *name)
    }

    fn observe(&mut self, observations: Vec<Value>) -> Told {
        let mut results = Vec::new();
        for observation in observations {
            let name = &observation["entityName"];
            let contents = list(&observation, "contents")?;
            let Some(entity) = self.named(name).next() else {
                return Err(format!("Entity with name {name} not found"));
            };
            let known = entity["observations"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let new: Vec<Value> = contents
                .into_iter()
                .filter(|one| !known.contains(one))
                .collect();
            entity["observations"] = [known, new.clone()].concat().into();
            results.push(json!({ "entityName": name, "addedObservations": new }));
        }
        Ok(json!({ "results": results }))
    }

    /// Returns the entities wanted, and the relations between them.
    fn graph(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let entities: Vec<&Value> = self.entities.iter().filter(|one| wanted(one)).collect();
        let has = |name: &Value| entities.iter().any(|one| one["name"] == *name);
        let relations: Vec<&Value> = self
            .relations
            .iter()
            .filter(|one| has(&one["from"]) && has(&one["to"]))
            .collect();
        json!({ "entities": entities, "relations": relations })
    }
}

fn list(given: &Value, key: &str) -> Result<Vec<Value>, String> {
    let list = given[key].as_array().cloned();
    list.ok_or_else(|| format!("MCP error -32602: Invalid arguments: {key} is required"))
}

fn done() -> Value {
    json!({ "success": true, "message": "done" })
}

/// Adds the items that are new by the fields in `key`, and returns them.
fn add(all: &mut Vec<Value>, given: Vec<Value>, key: &[&str]) -> Vec<Value> {
    let mut new = Vec::new();
    for one in given {
        let same = |other: &Value| key.iter().all(|field| other[*field] == one[*field]);
        if !all.iter().any(same) {
            all.push(one.clone());
            new.push(one);
        }
    }
    new
}

fn result(told: Told) -> Value {
    match told {
        Ok(value) => json!({
            "content": [{ "type": "text", "text": value.to_string() }],
            "structuredContent": value,
        }),
        Err(words) => json!({ "content": [{ "type": "text", "text": words }], "isError": true }),
    }
}

fn is_read(name: &str) -> bool {
    ["read_graph", "search_nodes", "open_nodes", "process_id"].contains(&name)
}

/// Returns the tools, with the hints of the real server.
fn tools() -> Vec<Value> {
    let names = [
        "create_entities",
        "create_relations",
        "add_observations",
        "delete_entities",
        "delete_observations",
        "delete_relations",
        "read_graph",
        "search_nodes",
        "open_nodes",
        "process_id",
    ];
    let tool = |name: &str| {
        let deletes = name.starts_with("delete_");
        json!({
            "name": name,
            "inputSchema": { "type": "object" },
            "annotations": {
                "readOnlyHint": is_read(name),
                "idempotentHint": is_read(name) || deletes,
                "destructiveHint": deletes,
            },
        })
    };
    names.into_iter().map(tool).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(file: &Path, calls: &[(&str, Value)]) -> Vec<Value> {
        let lines: Vec<String> = calls
            .iter()
            .map(|(name, arguments)| {
                let params = json!({ "name": name, "arguments": arguments });
                json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
                    .to_string()
            })
            .collect();
        let mut output = Vec::new();
        serve(lines.join("\n").as_bytes(), &mut output, file).unwrap();
        let text = String::from_utf8(output).unwrap();
        let answers = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        answers.map(|answer| answer["result"].clone()).collect()
    }

    #[test]
    fn it_keeps_its_graph_in_the_file_and_knows_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.jsonl");
        let ada = json!({ "name": "Ada", "entityType": "person", "observations": ["wrote notes"] });
        let twice = json!({ "entities": [ada] });
        let answers = ask(
            &file,
            &[
                ("create_entities", twice.clone()),
                ("create_entities", twice),
            ],
        );
        assert_eq!(answers[0]["structuredContent"]["entities"], json!([ada]));
        assert_eq!(answers[1]["structuredContent"]["entities"], json!([]));
        let more = json!({ "observations": [{ "entityName": "Ada", "contents": ["and proofs"] }] });
        let unknown = json!({ "observations": [{ "entityName": "Bob", "contents": ["x"] }] });
        let answers = ask(
            &file,
            &[
                ("add_observations", more),
                ("add_observations", unknown),
                ("search_nodes", json!({ "query": "ada" })),
                ("no_tool", json!({})),
            ],
        );
        assert_eq!(answers[1]["isError"], true);
        let found = &answers[2]["structuredContent"]["entities"][0]["observations"];
        assert_eq!(found, &json!(["wrote notes", "and proofs"]));
        assert_eq!(answers[3]["isError"], true);
        let gone = ask(
            &file,
            &[
                ("delete_entities", json!({ "entityNames": ["Ada"] })),
                ("read_graph", json!({})),
            ],
        );
        assert_eq!(
            gone[1]["structuredContent"],
            json!({ "entities": [], "relations": [] })
        );
    }
}
