// The loop of the SDK's documentation, with its default retries; then the other calls of batches.
import Anthropic from "@anthropic-ai/sdk";
import { MODEL, QUESTIONS, run } from "./report.mjs";

const params = (content) => ({ model: MODEL, max_tokens: 100, messages: [{ role: "user", content }] });

await run(async (report) => {
  const client = new Anthropic();
  const message = await client.messages.create(params("Whole?"));
  report.messages.push(message.content[0].text);
  report.messages.push(await client.messages.stream(params("Streamed?")).finalText());
  const { input_tokens } = await client.messages.countTokens({ model: MODEL, messages: params("Whole?").messages });
  if (!(input_tokens > 0)) throw new Error(`${input_tokens} tokens`);
  await client.models.retrieve(MODEL);
  const batch = await client.messages.batches.create({
    requests: Object.entries(QUESTIONS).map(([custom_id, question]) => ({ custom_id, params: params(question) })),
  });
  while ((await client.messages.batches.retrieve(batch.id)).processing_status !== "ended") {
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  for await (const row of await client.messages.batches.results(batch.id)) {
    if (row.result.type === "succeeded") report.answers[row.custom_id] = row.result.message.content[0].text;
  }
  const found = [];
  for await (const each of client.messages.batches.list({ limit: 1 })) found.push(each.id);
  if (found.join() !== batch.id) throw new Error(`the list shows ${found}`);
  const deleted = await client.messages.batches.delete(batch.id);
  if (deleted.id !== batch.id) throw new Error(`deleted is ${deleted.id}`);
  const other = await client.messages.batches.create({
    requests: [{ custom_id: "other", params: params("Question 0?") }],
  });
  await client.messages.batches.cancel(other.id);
});
