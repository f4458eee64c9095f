"""A dataset record in the terms of HealthDCAT-AP release 8, inside a DSP catalog and by itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ihds.catalogue.record import DatasetRecord

_CATEGORY = "https://hdeu-dcat.data.health.europa.eu/resource/authority/healthcategories/"
_EHDS = "http://data.europa.eu/eli/reg/2025/327/oj"
_ACCESS = "http://publications.europa.eu/resource/authority/access-right/NON_PUBLIC"
_HEALTH = "http://publications.europa.eu/resource/authority/data-theme/HEAL"
_XSD = "http://www.w3.org/2001/XMLSchema#"


def entry_properties(record: DatasetRecord) -> dict[str, Any]:
    """Return the DCAT properties a DSP dataset entry carries beside its offer."""
    return {
        "dct:title": record.title,
        "dct:description": record.description,
        "dct:publisher": record.holder_name,
        "dct:accessRights": _ACCESS,
        "dcat:keyword": list(record.keywords),
        "dcat:theme": _HEALTH,
        "healthdcatap:healthCategory": _CATEGORY + record.health_category,
        "healthdcatap:hdab": record.hdab,
        "healthdcatap:numberOfUniqueIndividuals": record.persons,
        "healthdcatap:hasStructuredData": True,
        "ihds:country": record.country,
        "ihds:codebook": record.codebook.to_dict(),
        **({"ihds:thresholds": asdict(record.thresholds)} if record.thresholds else {}),
    }


def dataset(record: DatasetRecord, page: str) -> dict[str, Any]:
    """Return the public HealthDCAT-AP description as JSON-LD; needs no permission to read."""
    columns = [
        {
            "@type": "csvw:Column",
            "csvw:name": v.name,
            "csvw:title": v.label or v.name,
            "csvw:datatype": "double" if v.kind == "number" else "string",
            **({"dct:description": f"unit {v.unit}"} if v.unit else {}),
        }
        for v in record.codebook.variables.values()
    ]
    agent = {
        "@type": "foaf:Agent",
        "foaf:name": record.holder_name,
        "cv:contactPoint": {"@type": "cv:ContactPoint", "cv:hasURL": {"@id": page}},
    }
    hdab = {**agent, "foaf:name": record.hdab or "no access body designated yet"}
    return {
        "@context": {
            "dcat": "http://www.w3.org/ns/dcat#",
            "dct": "http://purl.org/dc/terms/",
            "foaf": "http://xmlns.com/foaf/0.1/",
            "cv": "http://data.europa.eu/m8g/",
            "vcard": "http://www.w3.org/2006/vcard/ns#",
            "csvw": "http://www.w3.org/ns/csvw#",
            "dcatap": "http://data.europa.eu/r5r/",
            "geodcatap": "http://data.europa.eu/930/",
            "healthdcatap": "http://healthdataportal.eu/ns/health#",
        },
        "@id": page,
        "@type": "dcat:Dataset",
        "dct:identifier": record.id,
        "dct:title": {"@value": record.title, "@language": "en"},
        "dct:description": {"@value": record.description, "@language": "en"},
        "dct:accessRights": {"@id": _ACCESS},
        "dcatap:applicableLegislation": {"@id": _EHDS},
        "dcat:theme": {"@id": _HEALTH},
        "dcat:keyword": [{"@value": k, "@language": "en"} for k in record.keywords],
        "dct:type": {"@id": "http://publications.europa.eu/resource/authority/dataset-type/STATISTICAL"},
        "dct:provenance": {
            "@type": "dct:ProvenanceStatement",
            "dct:description": record.codebook.citation or record.description,
        },
        "dcat:contactPoint": {"@type": "vcard:Kind", "vcard:hasURL": {"@id": page}},
        "geodcatap:custodian": agent,
        "healthdcatap:hdab": hdab,
        "healthdcatap:healthCategory": {"@id": _CATEGORY + record.health_category},
        "healthdcatap:numberOfUniqueIndividuals": {
            "@value": str(record.persons),
            "@type": _XSD + "nonNegativeInteger",
        },
        "healthdcatap:hasStructuredData": True,
        "healthdcatap:hasVariables": {
            "@type": "csvw:TableGroup",
            "dct:title": record.codebook.name,
            "csvw:table": {"@type": "csvw:Table", "dct:title": record.title, "csvw:column": columns},
        },
        "dcat:distribution": {
            "@type": "dcat:Distribution",
            "dcat:accessURL": {"@id": page},
            "dcatap:applicableLegislation": {"@id": _EHDS},
        },
    }
