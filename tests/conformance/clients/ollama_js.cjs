// The official JavaScript client, with schemas as zod makes them. Same protocol as kit.py.
"use strict";

const assert = require("node:assert");
const http = require("node:http");
const { Ollama } = require("ollama");
const z = require("zod");

const URL = process.argv[2];
const MODEL = "smollm2:135m";
const EMBEDDER = "all-minilm:l6-v2";
const MISSING = "no-such-model:1b";
const QUESTION = "What is the capital of France?";
const ENDLESS = "Write a very long story about a cat, a dog and a bird who travel around the world.";
const messages = [{ role: "user", content: QUESTION }];
const pirate = { role: "system", content: "You speak like a pirate, always and at length." };
const greedy = { temperature: 0 };
const short = { temperature: 0, num_predict: 5 };
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const LIMIT = 120_000; // milliseconds for one feature
const client = new Ollama({ host: URL });

const collect = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};
const refusal = (status, ...words) => (error) => {
  assert.strictEqual(error.name, "ResponseError", String(error));
  if (status) assert.strictEqual(error.status_code, status, String(error));
  for (const word of words) assert.ok(error.message.includes(word), error.message);
  return true;
};

// How many requests the workers are serving, as vllamad's own control socket tells.
const leases = () =>
  new Promise((resolve, reject) => {
    const ask = { socketPath: process.env.VLLAMAD_CONTROL, path: "/v1/workers" };
    const read = async (response) => {
      const { workers } = JSON.parse((await collect(response)).join(""));
      resolve(workers.reduce((sum, worker) => sum + worker.leases, 0));
    };
    http.get(ask, (response) => read(response).catch(reject)).on("error", reject);
  });
const isLetGo = async () => {
  const limit = Date.now() + 5000;
  while (await leases()) assert.ok(Date.now() < limit, "the engine goes on without a client");
};

const features = {
  list: async () => {
    const found = (await client.list()).models.find((model) => model.name === MODEL);
    assert.ok(found.size > 0);
    assert.strictEqual(found.digest.length, 64);
  },

  show: async () => {
    const shown = await client.show({ model: MODEL });
    assert.strictEqual(shown.model_info["llama.context_length"], 8192);
    assert.ok(shown.capabilities.includes("completion"));
  },

  "load, unload": async () => {
    const loaded = await client.generate({ model: MODEL, prompt: "", keep_alive: "5m" });
    assert.strictEqual(loaded.done_reason, "load");
    const gone = await client.generate({ model: MODEL, prompt: "", keep_alive: 0 });
    assert.strictEqual(gone.done_reason, "unload");
    await client.chat({ model: MODEL, messages: [], keep_alive: 60 });
  },

  ps: async () => {
    const found = (await client.ps()).models.find((model) => model.name === MODEL);
    assert.ok(new Date(found.expires_at) > new Date(), found.expires_at);
    assert.ok(found.size > 0);
  },

  chat: async () => {
    const answer = await client.chat({ model: MODEL, messages, options: greedy });
    assert.match(answer.message.content, /Paris/);
    assert.strictEqual(answer.done_reason, "stop");
  },

  "chat, streamed": async () => {
    const ask = { model: MODEL, messages, options: greedy, stream: true };
    const chunks = await collect(await client.chat(ask));
    assert.match(chunks.map((chunk) => chunk.message.content).join(""), /Paris/);
    assert.ok(chunks.at(-1).done);
  },

  generate: async () => {
    const answer = await client.generate({ model: MODEL, prompt: QUESTION, options: greedy });
    assert.match(answer.response, /Paris/);
  },

  "generate, streamed": async () => {
    const ask = { model: MODEL, prompt: QUESTION, options: greedy, stream: true };
    const chunks = await collect(await client.generate(ask));
    assert.match(chunks.map((chunk) => chunk.response).join(""), /Paris/);
    assert.ok(chunks.at(-1).done);
  },

  "system message": async () => {
    const ask = { model: MODEL, options: short };
    const without = await client.chat({ ...ask, messages });
    const told = await client.chat({ ...ask, messages: [pirate, ...messages] });
    const system = await client.generate({ ...ask, prompt: QUESTION, system: pirate.content });
    assert.notStrictEqual(told.prompt_eval_count, without.prompt_eval_count);
    assert.strictEqual(system.prompt_eval_count, told.prompt_eval_count);
  },

  "token counts": async () => {
    const answer = await client.chat({ model: MODEL, messages, options: greedy });
    assert.strictEqual(answer.prompt_eval_count, 37);
    assert.ok(answer.eval_count > 0 && answer.eval_duration > 0);
    assert.ok(answer.total_duration >= answer.eval_duration);
  },

  seed: async () => {
    const options = { seed: 7, temperature: 1.5, num_predict: 20 };
    const ask = { model: MODEL, prompt: QUESTION, options };
    const [one, other] = [await client.generate(ask), await client.generate(ask)];
    assert.strictEqual(one.response, other.response);
  },

  "limit of tokens": async () => {
    const answer = await client.chat({ model: MODEL, messages, options: short });
    assert.deepStrictEqual([answer.done_reason, answer.eval_count], ["length", 5]);
  },

  "stop strings": async () => {
    const options = { ...greedy, stop: ["Paris"], num_predict: 40 };
    const answer = await client.chat({ model: MODEL, messages, options });
    assert.doesNotMatch(answer.message.content, /Paris/);
  },

  "JSON schema": async () => {
    const Country = z.object({ name: z.enum(["France", "Italy"]), inEurope: z.boolean() });
    const Answer = z.strictObject({
      city: z.enum(["Paris", "Rome"]).describe("The capital"),
      country: Country,
      nickname: z.enum(["city of light"]).nullable(),
      seen: z.array(z.enum(["museum", "tower"])).max(2),
      stars: z.int().min(1).max(5).optional(),
    });
    const format = z.toJSONSchema(Answer);
    const options = { ...greedy, num_predict: 200 };
    const answer = await client.chat({ model: MODEL, messages, format, options });
    Answer.parse(JSON.parse(answer.message.content));
  },

  "JSON mode": async () => {
    const prompt = 'Answer with the JSON object {"city": "Paris"} and nothing else.';
    const options = { ...greedy, num_predict: 60 };
    const answer = await client.generate({ model: MODEL, prompt, format: "json", options });
    assert.match(answer.response.trim(), /^\{/);
  },

  "log probabilities": async () => {
    const ask = { model: MODEL, messages, options: short, logprobs: true, top_logprobs: 2 };
    const answer = await client.chat(ask);
    assert.strictEqual(answer.logprobs.length, 5);
    assert.strictEqual(answer.logprobs[0].top_logprobs.length, 2);
  },

  "tools refused": () =>
    assert.rejects(
      client.chat({ model: MODEL, messages, tools: [weather] }),
      refusal(400, "does not support tools"),
    ),

  "thinking refused": () =>
    assert.rejects(
      client.chat({ model: MODEL, messages, think: true }),
      refusal(400, "does not support thinking"),
    ),

  "embed one": async () => {
    const { embeddings } = await client.embed({ model: EMBEDDER, input: "a cat" });
    const { embedding } = await client.embeddings({ model: EMBEDDER, prompt: "a cat" });
    assert.deepStrictEqual([embeddings[0].length, embedding.length], [384, 384]);
  },

  "embed many": async () => {
    const input = ["a cat", "a dog", "the stock market"];
    const { embeddings } = await client.embed({ model: EMBEDDER, input, truncate: true });
    for (const vector of embeddings) {
      const norm = vector.reduce((sum, value) => sum + value * value, 0);
      assert.ok(Math.abs(norm - 1) < 1e-3, String(norm));
    }
    assert.strictEqual(embeddings.length, 3);
  },

  "model not found": async () => {
    const ask = { model: MISSING, messages };
    await assert.rejects(client.chat(ask), refusal(404, MISSING, "not found"));
    await assert.rejects(client.chat({ ...ask, stream: true }), refusal(404, "not found"));
    await assert.rejects(client.show({ model: MISSING }), refusal(404, "not found"));
  },

  "pull refused": async () => {
    const words = "pull model manifest: file does not exist";
    await assert.rejects(client.pull({ model: MISSING }), refusal(500, words));
    const streamed = async () => collect(await client.pull({ model: MISSING, stream: true }));
    await assert.rejects(streamed, (error) => error.message.includes(words));
  },

  "copy, delete": async () => {
    await client.copy({ source: MODEL, destination: "conformance-copy-js" });
    const shown = await client.show({ model: "conformance-copy-js" });
    assert.ok(shown.capabilities.includes("completion"));
    await client.delete({ model: "conformance-copy-js" });
    await assert.rejects(client.delete({ model: "conformance-copy-js" }), refusal(404));
  },

  create: async () => {
    const told = { system: pirate.content, parameters: { num_predict: 3 } };
    const ask = { model: "conformance-js", from: MODEL, stream: true, ...told };
    const lines = await collect(await client.create(ask));
    assert.strictEqual(lines.at(-1).status, "success");
    const shown = await client.show({ model: "conformance-js" });
    await client.delete({ model: "conformance-js" });
    assert.strictEqual(shown.system, pirate.content);
    assert.match(shown.parameters, /^num_predict +3$/);
  },

  cancel: async () => {
    const ask = { model: MODEL, messages: [{ role: "user", content: ENDLESS }], stream: true };
    const stream = await client.chat(ask);
    let seen = 0;
    const read = async () => {
      for await (const _ of stream) {
        if (++seen !== 2) continue;
        assert.ok((await leases()) > 0);
        stream.abort();
      }
    };
    await assert.rejects(read, { name: "AbortError" });
    await isLetGo();
    const answer = await client.chat({ model: MODEL, messages, options: greedy });
    assert.match(answer.message.content, /Paris/);
  },

  "in parallel": async () => {
    const ask = { model: MODEL, messages, options: short };
    const answers = await Promise.all([1, 2, 3, 4].map(() => client.chat(ask)));
    assert.deepStrictEqual(answers.map((answer) => answer.eval_count), [5, 5, 5, 5]);
  },
};

const late = (name) =>
  new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`${name}: not over in time`)), LIMIT).unref();
  });

const main = async () => {
  for (const [name, run] of Object.entries(features)) {
    let problem = "";
    try {
      await Promise.race([run(), late(name)]);
    } catch (error) {
      const line = /ollama_js\.cjs:(\d+)/.exec(error.stack ?? "");
      problem = `${line ? `line ${line[1]}: ` : ""}${error.name}: ${error.message}`;
    }
    console.log(`\n${JSON.stringify({ feature: name, problem })}`);
  }
};

main().then(() => process.exit(0));
