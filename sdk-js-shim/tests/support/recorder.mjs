// A stand-in for the collector, over a real socket: remembers all events, answers as told.

import { once } from "node:events";
import { createServer } from "node:http";

const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-headers": "content-type,x-api-key",
};

/** Start one. `mode` is `take`, `hang` (no answer at all) or an HTTP status; `refuse` all with a reason. */
export async function startRecorder({ mode = "take", port = 0 } = {}) {
  const events = [];
  const recorder = { mode, events, requests: 0 };
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    if (request.method == "OPTIONS") return response.writeHead(204, CORS).end();
    recorder.requests++;
    if (recorder.mode == "hang") return;
    if (recorder.mode != "take") return response.writeHead(recorder.mode, CORS).end();
    const { batch } = JSON.parse(Buffer.concat(chunks));
    const { refuse } = recorder;
    const rejected = refuse ? batch.map((_, index) => ({ index, ...refuse })) : [];
    if (!refuse) events.push(...batch);
    const eventCount = batch.length - rejected.length;
    response.writeHead(202, CORS).end(JSON.stringify({ eventCount, rejected }));
  });
  await once(server.listen(port, "127.0.0.1"), "listening");
  recorder.url = `http://127.0.0.1:${server.address().port}`;
  recorder.port = server.address().port;
  recorder.names = () => events.map(({ name }) => name);
  recorder.stop = async () => {
    server.closeAllConnections();
    if (server.listening) await new Promise((done) => server.close(done));
  };
  return recorder;
}
