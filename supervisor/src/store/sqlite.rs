//! The store in one SQLite file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::record::stored_id;
use super::{
    Filter, KEPT_VERSIONS, Namespace, NewVersion, Page, Store, StoreError, Timestamp, Version, WorkerRecord,
};
use crate::registry::{Digest, Name, WorkerId};

/// Schema changes in order; the database's `user_version` counts those it has.
const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql")];

/// Columns of a Worker with its current version, as [`worker_from`] reads them.
const WORKER: &str = "SELECT w.namespace, w.name, w.created, w.modified, \
     (SELECT json_group_array(tag) FROM tags WHERE worker = w.id), \
     v.id, v.number, v.created, v.digest, v.size, v.startup_ms, v.manifest, v.attestation \
     FROM workers w JOIN versions v ON v.id = w.current";

/// Metadata in SQLite: WAL, every commit synced. Two connections, so that reads never wait for
/// a sync.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens or creates the database and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = connect(path)?;
        migrate(&mut writer)?;
        Ok(Self { writer: Mutex::new(writer), reader: Mutex::new(connect(path)?) })
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = lock(&self.writer);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = change(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }
}

/// A panic elsewhere leaves a rolled-back transaction, so a poisoned lock is good to use.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The supervisor may write nowhere but in its state folder.
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for script in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(script)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

fn corrupt(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what}: {error}"))
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn version_from(row: &Row<'_>, at: usize) -> Result<Version, StoreError> {
    let digest: String = row.get(at + 3)?;
    let manifest: String = row.get(at + 6)?;
    let attestation: String = row.get(at + 7)?;
    Ok(Version {
        id: row.get::<_, String>(at)?.into(),
        number: unsigned(row.get(at + 1)?),
        created: Timestamp(row.get(at + 2)?),
        digest: Digest::parse(&digest).ok_or_else(|| corrupt("digest", &digest))?,
        size: unsigned(row.get(at + 4)?),
        startup_ms: unsigned(row.get(at + 5)?),
        manifest: serde_json::from_str(&manifest).map_err(|error| corrupt("manifest", error))?,
        attestation: serde_json::from_str(&attestation).map_err(|error| corrupt("attestation", error))?,
    })
}

fn worker_from(row: &Row<'_>) -> Result<WorkerRecord, StoreError> {
    let name: String = row.get(1)?;
    let tags: String = row.get(4)?;
    Ok(WorkerRecord {
        id: stored_id(row.get(0)?, &name).map_err(|error| corrupt("name", error))?,
        created: Timestamp(row.get(2)?),
        modified: Timestamp(row.get(3)?),
        tags: serde_json::from_str(&tags).map_err(|error| corrupt("tags", error))?,
        version: version_from(row, 5)?,
    })
}

fn namespace_from(row: &Row<'_>) -> Result<Namespace, StoreError> {
    let name: String = row.get(1)?;
    Ok(Namespace {
        id: row.get(0)?,
        name: Name::parse(&name).map_err(|error| corrupt("namespace", error))?,
        created: Timestamp(row.get(2)?),
        modified: Timestamp(row.get(3)?),
        workers: unsigned(row.get(4)?),
    })
}

const NAMESPACE: &str = "SELECT id, name, created, modified, \
     (SELECT count(*) FROM workers w WHERE w.namespace = n.name) FROM namespaces n";

fn namespace(connection: &Connection, name: &str) -> Result<Namespace, StoreError> {
    let mut query = connection.prepare_cached(&format!("{NAMESPACE} WHERE name = ?1"))?;
    let mut rows = query.query([name])?;
    rows.next()?.map_or_else(|| Err(StoreError::NoNamespace(name.to_owned())), namespace_from)
}

fn worker(connection: &Connection, id: &WorkerId) -> Result<WorkerRecord, StoreError> {
    let mut query =
        connection.prepare_cached(&format!("{WORKER} WHERE w.namespace IS ?1 AND w.name = ?2"))?;
    let mut rows = query.query(params![id.namespace.as_deref(), &*id.name])?;
    if let Some(row) = rows.next()? {
        return worker_from(row);
    }
    if let Some(missing) = &id.namespace {
        namespace(connection, missing)?;
    }
    Err(StoreError::NoWorker(id.clone()))
}

/// Row id and current version of a Worker.
fn row_of(transaction: &Transaction<'_>, id: &WorkerId) -> Result<Option<(i64, String)>, StoreError> {
    let mut query =
        transaction.prepare_cached("SELECT id, current FROM workers WHERE namespace IS ?1 AND name = ?2")?;
    let row =
        query.query_row(params![id.namespace.as_deref(), &*id.name], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(row.optional()?)
}

fn touch(transaction: &Transaction<'_>, id: &WorkerId, now: Timestamp) -> Result<(), StoreError> {
    transaction.execute(
        "UPDATE workers SET modified = ?3 WHERE namespace IS ?1 AND name = ?2",
        params![id.namespace.as_deref(), &*id.name, now.0],
    )?;
    if let Some(namespace) = &id.namespace {
        transaction
            .execute("UPDATE namespaces SET modified = ?2 WHERE name = ?1", params![&**namespace, now.0])?;
    }
    Ok(())
}

fn write_tags(transaction: &Transaction<'_>, worker: i64, tags: &BTreeSet<String>) -> Result<(), StoreError> {
    transaction.execute("DELETE FROM tags WHERE worker = ?1", [worker])?;
    let mut insert = transaction.prepare_cached("INSERT INTO tags (worker, tag) VALUES (?1, ?2)")?;
    for tag in tags {
        insert.execute(params![worker, tag])?;
    }
    Ok(())
}

impl Store for SqliteStore {
    fn create_namespace(&self, name: &Name) -> Result<Namespace, StoreError> {
        self.write(|transaction| {
            let now = Timestamp::now().0;
            let added = transaction.execute(
                "INSERT INTO namespaces (name, id, created, modified) VALUES (?1, ?2, ?3, ?3) ON CONFLICT DO NOTHING",
                params![name.as_str(), uuid::Uuid::now_v7().to_string(), now],
            )?;
            if added == 0 {
                return Err(StoreError::NamespaceExists(name.to_string()));
            }
            namespace(transaction, name.as_str())
        })
    }

    fn namespaces(&self) -> Result<Vec<Namespace>, StoreError> {
        let connection = lock(&self.reader);
        let mut query = connection.prepare_cached(&format!("{NAMESPACE} ORDER BY name"))?;
        let mut rows = query.query([])?;
        let mut list = Vec::new();
        while let Some(row) = rows.next()? {
            list.push(namespace_from(row)?);
        }
        Ok(list)
    }

    fn namespace(&self, name: &Name) -> Result<Namespace, StoreError> {
        namespace(&lock(&self.reader), name.as_str())
    }

    fn delete_namespace(&self, name: &Name) -> Result<(), StoreError> {
        self.write(|transaction| {
            match transaction.execute("DELETE FROM namespaces WHERE name = ?1", [name.as_str()])? {
                0 => Err(StoreError::NoNamespace(name.to_string())),
                _ => Ok(()),
            }
        })
    }

    fn put_version(&self, version: &NewVersion) -> Result<WorkerRecord, StoreError> {
        self.write(|transaction| {
            let id = &version.id;
            if let Some(name) = &id.namespace {
                namespace(transaction, name)?;
            }
            let row = row_of(transaction, id)?;
            if let Some(expected) = &version.replaces
                && row.as_ref().map(|(_, current)| current.as_str()) != expected.as_deref()
            {
                return Err(StoreError::Conflict(id.clone()));
            }
            let now = Timestamp::now();
            let worker_row = match row {
                Some((row, _)) => {
                    let sql = "UPDATE workers SET current = ?2 WHERE id = ?1";
                    transaction.execute(sql, params![row, &*version.version])?;
                    row
                }
                None => {
                    let sql = "INSERT INTO workers (namespace, name, created, modified, current) \
                               VALUES (?1, ?2, ?3, ?3, ?4)";
                    let values = params![id.namespace.as_deref(), &*id.name, now.0, &*version.version];
                    transaction.execute(sql, values)?;
                    transaction.last_insert_rowid()
                }
            };
            let manifest = serde_json::to_string(&version.manifest).map_err(|error| corrupt("manifest", error))?;
            transaction.execute(
                "INSERT INTO versions (id, worker, number, created, digest, files, size, startup_ms, manifest, attestation) \
                 VALUES (?1, ?2, (SELECT ifnull(max(number), 0) + 1 FROM versions WHERE worker = ?2), ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    &*version.version,
                    worker_row,
                    now.0,
                    version.digest.as_str(),
                    version.manifest.files.as_ref().map(|files| &files.digest),
                    signed(version.size),
                    signed(version.startup_ms),
                    manifest,
                    version.attestation.to_string(),
                ],
            )?;
            transaction.execute(
                "DELETE FROM versions WHERE worker = ?1 AND number <= (SELECT max(number) FROM versions WHERE worker = ?1) - ?2",
                params![worker_row, KEPT_VERSIONS],
            )?;
            if let Some(tags) = &version.tags {
                write_tags(transaction, worker_row, tags)?;
            }
            touch(transaction, id, now)?;
            worker(transaction, id)
        })
    }

    fn worker(&self, id: &WorkerId) -> Result<WorkerRecord, StoreError> {
        worker(&lock(&self.reader), id)
    }

    fn workers(
        &self,
        of: Option<&Name>,
        filter: &Filter,
        page: Page,
    ) -> Result<(Vec<WorkerRecord>, u64), StoreError> {
        let connection = lock(&self.reader);
        if let Some(name) = of {
            namespace(&connection, name.as_str())?;
        }
        // Lists go in as JSON arrays, so the statement's text never depends on a client.
        let condition = "WHERE w.namespace IS ?1 \
             AND NOT EXISTS (SELECT 1 FROM json_each(?2) j WHERE NOT EXISTS (SELECT 1 FROM tags t WHERE t.worker = w.id AND t.tag = j.value)) \
             AND NOT EXISTS (SELECT 1 FROM json_each(?3) j JOIN tags t ON t.worker = w.id AND t.tag = j.value)";
        let (with, without) =
            (serde_json::Value::from(filter.with.clone()), serde_json::Value::from(filter.without.clone()));
        let (with, without) = (with.to_string(), without.to_string());
        let of = of.map(Name::as_str);
        let total = connection
            .prepare_cached(&format!("SELECT count(*) FROM workers w {condition}"))?
            .query_row(params![of, with, without], |row| row.get(0))?;
        let mut query =
            connection.prepare_cached(&format!("{WORKER} {condition} ORDER BY w.name LIMIT ?4 OFFSET ?5"))?;
        let mut rows = query.query(params![of, with, without, signed(page.limit), signed(page.offset)])?;
        let mut list = Vec::new();
        while let Some(row) = rows.next()? {
            list.push(worker_from(row)?);
        }
        Ok((list, unsigned(total)))
    }

    fn versions(&self, id: &WorkerId) -> Result<Vec<Version>, StoreError> {
        let connection = lock(&self.reader);
        worker(&connection, id)?;
        let mut query = connection.prepare_cached(
            "SELECT v.id, v.number, v.created, v.digest, v.size, v.startup_ms, v.manifest, v.attestation \
             FROM versions v JOIN workers w ON w.id = v.worker \
             WHERE w.namespace IS ?1 AND w.name = ?2 ORDER BY v.number DESC",
        )?;
        let mut rows = query.query(params![id.namespace.as_deref(), &*id.name])?;
        let mut list = Vec::new();
        while let Some(row) = rows.next()? {
            list.push(version_from(row, 0)?);
        }
        Ok(list)
    }

    fn delete_worker(&self, id: &WorkerId) -> Result<(), StoreError> {
        self.write(|transaction| {
            worker(transaction, id)?;
            touch(transaction, id, Timestamp::now())?;
            let sql = "DELETE FROM workers WHERE namespace IS ?1 AND name = ?2";
            transaction.execute(sql, params![id.namespace.as_deref(), &*id.name])?;
            Ok(())
        })
    }

    fn set_tags(&self, id: &WorkerId, tags: &BTreeSet<String>) -> Result<WorkerRecord, StoreError> {
        self.write(|transaction| {
            let Some((row, _)) = row_of(transaction, id)? else { return worker(transaction, id) };
            write_tags(transaction, row, tags)?;
            touch(transaction, id, Timestamp::now())?;
            worker(transaction, id)
        })
    }

    fn each_worker(
        &self,
        each: &mut dyn FnMut(WorkerRecord) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let connection = lock(&self.reader);
        let mut query = connection.prepare(WORKER)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            each(worker_from(row)?)?;
        }
        Ok(())
    }

    fn uses(&self, digest: &Digest) -> Result<bool, StoreError> {
        let connection = lock(&self.writer);
        let mut query = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM versions WHERE digest = ?1 OR files = ?1)")?;
        Ok(query.query_row([digest.as_str()], |row| row.get(0))?)
    }

    fn blobs(&self) -> Result<BTreeMap<Digest, Option<u64>>, StoreError> {
        let connection = lock(&self.reader);
        let mut query = connection.prepare(
            "SELECT digest, size FROM versions UNION SELECT files, NULL FROM versions WHERE files IS NOT NULL",
        )?;
        let mut rows = query.query([])?;
        let mut blobs = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            let digest = Digest::parse(&text).ok_or_else(|| corrupt("digest", &text))?;
            let size = row.get::<_, Option<i64>>(1)?.map(unsigned);
            let known = blobs.entry(digest).or_insert(size);
            *known = known.or(size);
        }
        Ok(blobs)
    }

    fn remember(&self, key: &str, value: &str) -> Result<String, StoreError> {
        self.write(|transaction| {
            let sql = "INSERT INTO facts (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            transaction.execute(sql, [key, value])?;
            Ok(transaction.query_row("SELECT value FROM facts WHERE key = ?1", [key], |row| row.get(0))?)
        })
    }
}
