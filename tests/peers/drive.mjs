// The official TypeScript client drives a server over stdio: node drive.mjs MODE COMMAND ...ARGUMENTS
// What it saw is one line of JSON on stdout, of the same shape as that of drive.py.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const installed = createRequire(process.env.PEERS + '/package.json'); // not beside this file: nothing is installed there
const load = name => import(pathToFileURL(installed.resolve(name)).href);
const { Client } = await load('@modelcontextprotocol/client');
const { StdioClientTransport } = await load('@modelcontextprotocol/client/stdio');

const [mode, command, ...args] = process.argv.slice(2);
const client = new Client(
    { name: 'peer', version: '1' },
    { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode } }
);
const asked = [];
client.setRequestHandler('elicitation/create', async request => {
    asked.push(request.params.message);
    return { action: 'accept', content: { cups: 2, milk: true } };
});
await client.connect(new StdioClientTransport({ command, args }));

const progress = [];
const onprogress = told => progress.push([told.progress, told.total, told.message]);
const counted = await client.callTool({ name: 'count', arguments: { to: 3 } }, { onprogress });
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
        protocol: client.getNegotiatedProtocolVersion(),
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
