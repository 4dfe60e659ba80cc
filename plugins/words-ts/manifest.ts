export const manifest = `
name = "words-ts"
version = "0.1.0"
topics = ["text.written"]

[tasks.count]
payload-schema = '''
{
  "type": "object",
  "required": ["text"],
  "additionalProperties": false,
  "properties": {
    "tenant": { "type": "string", "minLength": 1 },
    "text": { "type": "string" },
    "pause-ms": { "type": "integer", "minimum": 0, "maximum": 10000 },
    "fail": { "enum": ["retry", "retry-after", "discard", "panic"] }
  }
}
'''
key = "/tenant"
limit = { per-key = 2 }
retry = { attempts = 5, backoff = "1s..5m" }
timeout = "60s"
cpu = "10s"
memory = "64MiB"
`;
