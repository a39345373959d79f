// generateText for half of the questions, streamText for the others.
import { createAnthropic } from "@ai-sdk/anthropic";
import { generateText, streamText } from "ai";
import { MODEL, QUESTIONS, run } from "./report.mjs";

await run(async (report) => {
  // Its base URL has the version of the API in it.
  const anthropic = createAnthropic({ baseURL: `${process.env.ANTHROPIC_BASE_URL}/v1` });
  const names = Object.keys(QUESTIONS);
  for (const [n, name] of names.entries()) {
    const call = { model: anthropic(MODEL), maxOutputTokens: 100, prompt: QUESTIONS[name] };
    if (n % 2) {
      let raised;
      const stream = streamText({ ...call, onError: ({ error }) => (raised = error) });
      report.answers[name] = await stream.text;
      if (raised) throw raised;
    } else {
      report.answers[name] = (await generateText(call)).text;
    }
  }
});
