// What the drivers on Node share: the requests, and one line that says what happened.

export const MODEL = "claude-haiku-4-5";
export const QUESTIONS = Object.fromEntries(
  [...Array(20).keys()].map((n) => [`question-${n}`, `Question ${n}?`]),
);

export async function run(main) {
  const report = { answers: {}, messages: [], raised: [], error: "" };
  try {
    await main(report);
  } catch (error) {
    report.error = `${error?.constructor?.name ?? "Error"}: ${String(error?.message ?? error).split("\n")[0]}`;
    report.error = report.error.slice(0, 300);
  }
  console.log("\n" + JSON.stringify(report));
  process.exit(0);
}
