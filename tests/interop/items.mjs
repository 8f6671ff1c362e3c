// The one table of the scenarios, as a code generator would have written it.

/** The bundled migration that creates it: in SQLite and PostgreSQL the same. */
export const itemsMigration = {
  version: '20240101000001',
  ops: [
    {
      stmts: [{ sql: 'CREATE TABLE "items" ("id" TEXT NOT NULL PRIMARY KEY, "content" TEXT)' }],
      table: {
        name: 'items',
        columns: [
          { name: 'id', sqliteType: 'TEXT', pgType: { name: 'text', array: [], size: [] } },
          { name: 'content', sqliteType: 'TEXT', pgType: { name: 'text', array: [], size: [] } },
        ],
        fks: [],
        pks: ['id'],
      },
    },
  ],
}

/** What the client has to know of it; `z` is the zod that the package itself uses. */
export function itemsTable(z) {
  const row = z.object({ id: z.string(), content: z.string().nullable() })
  const columns = z.object({ id: z.boolean().optional(), content: z.boolean().optional() })
  // The package only asks that these have the shape of what a code generator writes.
  const any = z.any().optional()
  const query = z.object({ select: columns.optional(), where: any, include: columns.optional() })
  const write = query.extend({ data: any })
  return {
    fields: new Map([
      ['id', 'TEXT'],
      ['content', 'TEXT'],
    ]),
    relations: [],
    modelSchema: row,
    createSchema: z.object({ select: columns.optional(), data: row }),
    createManySchema: write,
    findUniqueSchema: query,
    findSchema: query,
    updateSchema: write,
    updateManySchema: write,
    upsertSchema: write,
    deleteSchema: query,
    deleteManySchema: query,
  }
}
