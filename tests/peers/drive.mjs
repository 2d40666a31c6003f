// The official TypeScript clients drive a server: node drive.mjs MODE COMMAND ...ARGUMENTS over stdio, node drive.mjs MODE URL over
// HTTP. MODE `sdk`, or `sse` with its old transport: @modelcontextprotocol/sdk, the line before.
// What it saw is one line of JSON on stdout, of the same shape as that of drive.py.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const installed = createRequire(process.env.PEERS + '/package.json'); // not beside this file: nothing is installed there
const load = name => import(pathToFileURL(installed.resolve(name)).href);
const [mode, command, ...args] = process.argv.slice(2);
const old = mode === 'sdk' || mode === 'sse';

async function transport() {
    if (mode === 'sse') {
        const { SSEClientTransport } = await load('@modelcontextprotocol/sdk/client/sse.js');
        return new SSEClientTransport(new URL(command));
    }
    if (old) {
        const { StreamableHTTPClientTransport } = await load('@modelcontextprotocol/sdk/client/streamableHttp.js');
        return new StreamableHTTPClientTransport(new URL(command));
    }
    if (command.startsWith('http')) {
        const { StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client');
        return new StreamableHTTPClientTransport(new URL(command));
    }
    const { StdioClientTransport } = await load('@modelcontextprotocol/client/stdio');
    return new StdioClientTransport({ command, args });
}

const { Client } = await load(old ? '@modelcontextprotocol/sdk/client/index.js' : '@modelcontextprotocol/client');
const client = new Client(
    { name: 'peer', version: '1' },
    { capabilities: { elicitation: { form: {} } }, ...(old ? {} : { versionNegotiation: { mode } }) }
);
const asked = [];
const asks = old ? (await load('@modelcontextprotocol/sdk/types.js')).ElicitRequestSchema : 'elicitation/create';
client.setRequestHandler(asks, async request => {
    asked.push(request.params.message);
    return { action: 'accept', content: { cups: 2, milk: true } };
});
const connection = await transport();
await client.connect(connection);

const progress = [];
const onprogress = told => progress.push([told.progress, told.total, told.message]);
const counted = await client.callTool({ name: 'count', arguments: { to: 3 } }, ...(old ? [undefined] : []), { onprogress });
const summed = await client.callTool({ name: 'blocking_sum', arguments: { numbers: [1.5, 2.5] } });
const refused = await client.callTool({ name: 'echo', arguments: { text: 7 } });
const ordered = await client.callTool({ name: 'order_coffee', arguments: {} });
const read = await client.readResource({ uri: 'echo://moin' });
const prompt = await client.getPrompt({ name: 'review', arguments: { code: 'x = 1' } });
const echoes = await Promise.all(
    [...Array(50).keys()].map(i => client.callTool({ name: 'echo', arguments: { text: `${i}` } }))
);
let unknown = null;
try {
    await client.callTool({ name: 'nope', arguments: {} });
} catch (error) {
    unknown = error.code;
}
console.log(
    JSON.stringify({
        protocol: old ? (connection.protocolVersion ?? connection._protocolVersion) : client.getNegotiatedProtocolVersion(),
        server: client.getServerVersion().name,
        instructions: client.getInstructions(),
        tools: (await client.listTools()).tools.map(tool => tool.name),
        templates: (await client.listResourceTemplates()).resourceTemplates.map(one => one.uriTemplate),
        prompts: (await client.listPrompts()).prompts.map(one => one.name),
        echoes: echoes.map(result => [result.structuredContent, result.content[0].text]),
        refused: [refused.isError, refused.content[0].text.includes('echo')],
        unknown,
        counted: counted.structuredContent,
        progress,
        summed: summed.structuredContent,
        ordered: ordered.structuredContent,
        asked,
        read: read.contents,
        prompt: prompt.messages
    })
);
await client.close();
