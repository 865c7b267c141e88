/** The one importer of @peculiar/x509, which throws while it loads unless reflect-metadata came first. */

import "reflect-metadata";

export * from "@peculiar/x509";
