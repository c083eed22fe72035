// Takes a webhook: checks its shape, answers with a status of its own.
exports.main_handler = async (event) => {
  const text = event.isBase64Encoded ? Buffer.from(event.body, "base64").toString() : event.body;
  let payload;
  try {
    payload = JSON.parse(text);
  } catch {
    return { statusCode: 400, headers: { "content-type": "text/plain" }, body: "not JSON\n" };
  }
  console.log(`${event.pathParameters.source} says ${payload.action}`);
  return {
    statusCode: 202,
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ source: event.pathParameters.source, action: payload.action }),
  };
};
