// A tiny web service to try deployments with. It answers its version, and on every request logs a line with the data of a
// made-up buyer, so that one can see such data masked. No packages are needed.
'use strict';
const http = require('node:http');
const fs = require('node:fs');

const version = fs.readFileSync(`${__dirname}/VERSION`, 'utf8').trim();
const broken = fs.existsSync(`${__dirname}/BROKEN`);
const port = Number(process.env.PORT || 9710);

function log(level, message) {
  process.stdout.write(`${new Date().toISOString()} ${level} sample-app ${version} ${message}\n`);
}

// Invented people with example addresses and numbers.
const buyers = [
  { name: 'Li Hua', email: 'lihua@example.com', phone: '13800138000' },
  { name: 'Wang Wei', email: 'wang.wei@example.org', phone: '+86 139 1234 5678' },
  { name: 'Anna Petrova', email: 'anna.petrova@example.net', phone: '+7 912 345-67-89' },
];
let orders = 0;

const server = http.createServer((request, response) => {
  const buyer = buyers[orders % buyers.length];
  orders += 1;
  if (broken) {
    log('ERROR', `order ${orders} of ${buyer.name} <${buyer.email}> failed: database "orders" does not exist`);
    response.writeHead(500, { 'content-type': 'text/plain' });
    response.end('internal error\n');
    return;
  }
  log('INFO', `${request.method} ${request.url} order ${orders} buyer=${buyer.email} phone=${buyer.phone}`);
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ app: 'sample-app', version, orders }) + '\n');
});

server.on('error', (error) => {
  log('ERROR', `could not listen on port ${port}: ${error.message}`);
  process.exit(1);
});
server.listen(port, '127.0.0.1', () => log('INFO', `listening on 127.0.0.1:${port}`));
process.on('SIGTERM', () => {
  log('INFO', 'asked to stop');
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
