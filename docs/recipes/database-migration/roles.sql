-- What an administrator runs once: psql -v password=... -f roles.sql
-- The shop reads and writes rows. The migrator may, in addition, create tables in this database; it
-- is no superuser, and may create neither roles nor databases.
\set ON_ERROR_STOP on
CREATE ROLE shop NOLOGIN; -- the role of the service, which logs in as a member of it
CREATE ROLE migrator LOGIN PASSWORD :'password' IN ROLE shop;
CREATE DATABASE shop;
REVOKE ALL ON DATABASE shop FROM PUBLIC;
GRANT CONNECT ON DATABASE shop TO shop, migrator;
\connect shop
GRANT CREATE ON SCHEMA public TO migrator;
