"""The code tables of a made county: the codes that its rows use, described, in the columns of the codebook.

Codes that stand in real rows, in HCAD's codebook or in its layout of 2019 are real (state classes, fixtures, structural
elements, exemptions); where a list is longer than what is known of it the rest is made up in its manner. ``Pool`` records begin
with the code, so that a row takes code and description together.
"""

from __future__ import annotations

from whole_county.draws import Pool

Records = list[tuple[str, ...]]


def _records(text: str) -> Records:
    return [tuple(part.strip() for part in line.split("|")) for line in text.strip().splitlines()]


#: Code, department, description, weight among the accounts.
_STATE_CLASSES = """
A1|D1|Real, Residential, Single-Family|68
A2|D1|Real, Residential, Mobile Homes|1.6
A3|D1|Real, Residential, Half-Duplex|0.6
A4|D1|Real, Residential, Auxiliary Buildings|5.2
B1|D2|Real, Residential, Multi-Family|0.7
B2|D1|Real, Residential, Two-Family|1.3
B3|D1|Real, Residential, Three-Family|0.1
B4|D1|Real, Residential, Four- or More-Family|0.2
C1|D1|Real, Vacant Lots/Tracts (In City)|8.2
C2|D2|Real, Vacant Commercial|2.9
C3|D1|Real, Vacant Lots/Tracts (Not In City)|0.9
D1|D3|Real, Qualified Agricultural Land|0.9
D2|D3|Real, Unqualified Agricultural Land|0.3
E1|D1|Real, Farm & Ranch Improved|3.9
F1|D2|Real, Commercial|5.1
F2|D4|Real, Industrial|0.3
J1|D5|Real, Water Systems|0.1
J2|D5|Gas Companies|0.1
J3|D5|Electric Companies|0.2
O1|D1|Inventory|2.4
X1|D6|Governmental Exempt|1.5
XJ|D6|Private Schools|0.1
XL|D6|Economic Development|0.1
XV|D6|Other Exempt|2.1
M3|D1|Tangible Personal Mobile Homes|0
G1|D5|Oil and Mineral Gas Reserves|0
"""
STATE_CLASSES: Records = _records(_STATE_CLASSES)
STATE_CLASS = Pool([row[:3] for row in STATE_CLASSES], [float(row[3]) for row in STATE_CLASSES])

BUILDING_TYPES = _records("""
1001|Residential Single Family
1002|Residential Duplex
1003|Residential Triplex
1004|Residential 4-Plex
1005|Residential Mixed Use
1006|Residential Condominium
1007|Residential Mobile Home
4101|Apartment
4345|Retail
4353|Office
4398|Warehouse
4405|Industrial
4700|Church
4900|Government
""")
RES_TYPE = Pool(BUILDING_TYPES[:7], [90, 1.5, 0.2, 0.3, 0.5, 5.5, 2])
OTHER_TYPE = Pool(BUILDING_TYPES[7:], [30, 22, 16, 20, 4, 5, 3])
BUILDING_STYLES = _records("""
101|Residential 1 Family
102|Residential 2 Family
103|Residential 3 Family
104|Residential 4 Family or More
105|Mixed Residential / Commercial
107|Townhome
108|Mobile Home
201|Garden Apartment
344|Office Building
353|Shopping Center
398|Warehouse, Storage
405|Light Manufacturing
""")
RES_STYLE = Pool(BUILDING_STYLES[:7], [88, 2, 0.3, 0.3, 0.4, 7, 2])
OTHER_STYLE = Pool(BUILDING_STYLES[7:])
BUILDING_CLASSES = _records("R|Residential\nB|Masonry Bearing\nC|Concrete\nD|Wood Frame\nS|Pre-engineered Steel\nP|Pole Frame")
RES_CLASS, OTHER_CLASS = Pool(BUILDING_CLASSES[:1]), Pool(BUILDING_CLASSES[1:], [20, 30, 25, 22, 3])
QUALITIES = _records("X|Superior\nA|Excellent\nB|Good\nC|Average\nD|Low\nE|Very Low\nF|Poor")
QUALITY = Pool(QUALITIES, [0.5, 2, 16, 58, 19, 4, 0.5])
FIXTURES = _records("""
RMB|Room:  Bedroom
RMF|Room:  Full Bath
RMH|Room:  Half Bath
RMT|Room:  Total
STY|Story Height Index
FPW|Fireplace: Wood
RMR|Room:  Rec
WLH|Wall Height
ELV|Elevator Stops
UNT|Units
""")
ELEMENTS = [
    ("FND", "Foundation Type"), ("XWR", "Exterior Wall"), ("HAC", "Heating / AC"), ("CDU", "Cond / Desir / Util"),
    ("GRD", "Grade Adjustment"),
    ("PCR", "Physical Condition"), ("CAD", "Cost and Design"), ("CNS", "Construction Type"), ("XWO", "Exterior Wall"), ("PLB", "Plumbing"),
]  # fmt: skip
#: Element type, code, description, the adjustment in hundredths (empty: none), weight among the elements of its type.
_ELEMENT_CODES = """
FND|1|Slab|0|78
FND|2|Crawl Space|0|20
FND|3|Basement|0|2
XWR|1|Frame / Concrete Blk|3000|40
XWR|6|Brick / Veneer|7770|45
XWR|7|Brick / Masonry|9150|5
XWR|8|Stucco|5200|10
HAC|1|None|0|4
HAC|2|Central Heat|300|6
HAC|3|Central Heat/AC|800|90
CDU|2|Poor|70|2
CDU|3|Fair|88|8
CDU|4|Average|99|66
CDU|5|Good|105|22
CDU|7|Excellent|115|2
GRD|3|X|300|1
GRD|5|A|190|5
GRD|8|B|134|20
GRD|9|B-|117|18
GRD|11|C|100|40
GRD|13|D|80|16
PCR|2|Poor||2
PCR|3|Fair||8
PCR|4|Average||72
PCR|5|Good||18
CAD|90|New / Rehabbed|200|25
CAD|91|Partial|150|45
CAD|92|Extensive|135|20
CAD|93|Total|175|10
CNS|1|Fire Proof Steel|0|10
CNS|3|Masonry / Wood|0|40
CNS|5|Metal, Light|0|50
XWO|1|Brick|0|30
XWO|2|Concrete Tilt|0|40
XWO|4|Metal|0|30
PLB|1|Adequate|0|90
PLB|2|Excessive|0|10
"""
ELEMENT_CODES: Records = _records(_ELEMENT_CODES)
PGI = Pool(_records("AP|Apartment Class B\nRT|Retail Neighborhood\nOF|Office Class C\nWH|Warehouse Bulk\nXX|None"), [20, 20, 15, 20, 25])
SUBAREAS = Pool(
    _records("""
BAS|BASE AREA PRI
BAU|BASE AREA UPR
FSP|ONE STORY FRAME PRI
FSU|ONE STORY FRAME UPR
OMP|OPEN MAS PORCH PRI
OFP|OPEN FRAME PORCH PRI
MAG|MAS/BRK GARAGE PRI
FRG|FRAME GARAGE PRI
WDK|WOOD DECK PRI
MSU|ONE STORY MAS UPR
CAP|CANOPY PRI
"""),
    [24, 16, 9, 6, 14, 8, 12, 5, 3, 2, 1],
)
FEATURE_CATEGORIES = _records("OB|Outbuildings\nMS|Miscellaneous\nPL|Pools\nGR|Garage\nCN|Canopy\nPV|Paving\nFN|Fence")
#: Code, short and long description, category, unit price in cents, weight.
_FEATURES = """
RRS1|WDUtSh|Frame Utility Shed|OB|900|20
RRS2|MtUtSh|Metal Utility Shed|OB|700|8
ROGV|OtherRs|Residential Other Gross Value|MS|100000|3
RRP5|GnPool|Gunite Pool|PL|8500|22
RRP9|PoolHt|Pool Heater|PL|250000|4
RRP7|Spa|Pool SPA with Heater|PL|900000|7
RRG1|FrmGar|Frame Detached Garage|GR|3300|24
RRG2|BrkGar|Brick or Stone Detached Garage|GR|4700|8
RRC1|FrmCrpt|Frame Detached Carport|CN|1700|4
CPA1|AspPav|Paving - Asphalt|PV|290|12
CPC1|ConPav|Paving - Heavy Concrete|PV|520|40
CCN1|CanStd|Canopy Only|CN|2400|14
CFN1|ChnLnk|Chain Link Fence|FN|1500|12
CSH1|ComShd|Commercial Utility Shed|OB|1300|9
CMS1|LtPole|Light Poles|MS|120000|13
"""
FEATURES: Records = _records(_FEATURES)
_CATEGORY = dict(FEATURE_CATEGORIES)
RES_FEATURE, OTHER_FEATURE = (
    Pool([(row[0], row[1], row[2], row[3], _CATEGORY[row[3]], row[4]) for row in rows], [float(row[5]) for row in rows])
    for rows in (FEATURES[:9], FEATURES[9:])
)
JURISDICTION_TYPES = _records(
    "C|City\nS|School\nK|County\nM|Municipal Utility District\nJ|Junior College\nE|Emergency Services District\nO|Other"
)
#: The codes of the exemption columns of 2019, described; weight among the accounts that have one.
_EXEMPTIONS = """
RES|Residential Homestead|82
TOT|Total Exemption|7.6
DIS|Disability|1.9
VTX|Disabled Veteran, Totally|2.2
V11|Veteran 10% to 29%|0.7
V12|Veteran 30% to 49%|0.6
V13|Veteran 50% to 69%|0.6
V14|Veteran 70% to 100%|1.4
V21|Surviving Spouse, Veteran 10% to 29%|0.1
V22|Surviving Spouse, Veteran 30% to 49%|0.1
V23|Surviving Spouse, Veteran 50% to 69%|0.1
V24|Surviving Spouse, Veteran 70% to 100%|0.1
VCH|Charity Donated Home, Veteran|0.01
VS1|Surviving Spouse of Veteran, 10% to 29%|0.02
VS2|Surviving Spouse of Veteran, 30% to 49%|0.02
VS3|Surviving Spouse of Veteran, 50% to 69%|0.02
VS4|Surviving Spouse of Veteran, 70% to 100%|0.05
STX|Surviving Spouse of Totally Disabled Veteran|0.2
SSA|Surviving Spouse of Armed Forces Member|0.02
SSF|Surviving Spouse of First Responder|0.02
SSD|Surviving Spouse of a Person with a Disability|0.05
PAR|Partial Exempt|0.3
PDS|Partial Disability|0.1
PEX|Partial Exemption|0.2
PRO|Prorated|0.2
ABT|Abatement|0.05
HIS|Historical|0.05
LIH|Low Income Housing|0.05
MCL|Miscellaneous|0.1
POL|Pollution Control|0.03
SOL|Solar|0.3
SFT|Storm and Flood Temporary|0.02
STT|School Tax Transfer|0.02
APD|Appraised Value, Disability|0
APO|Appraised Value, Over 65|0
APR|Appraised Value, Residential|0
APS|Appraised Value, Surviving Spouse|0
OVR|Over 65|0
POV|Prorated Over 65|0
SUR|Surviving Spouse Over 65|0
"""
EXEMPTIONS: Records = _records(_EXEMPTIONS)
EXEMPTION = Pool([row[:2] for row in EXEMPTIONS], [float(row[2]) for row in EXEMPTIONS])
LAND_USES = _records("""
1001|Res Improved Table Value
1002|Res Improved Override
1003|Res Vacant Table Value
2001|Commercial Improved Land
2002|Commercial Vacant Land
4300|General Commercial Vacant
8001|Land Neighborhood Section 1
8003|Land Neighborhood Section 3
7100|Pasture, Improved
7200|Cropland, Dry
7300|Timber at Productivity
""")
RES_LAND, OTHER_LAND, AG_LAND = (
    Pool(LAND_USES[:3], [90, 4, 6]),
    Pool(LAND_USES[3:8], [45, 20, 15, 12, 8]),
    Pool(LAND_USES[8:], [60, 30, 10]),
)
_INFLUENCES = _records("\nCORN|Corner\nCULD|Cul-De-Sac\nWTRF|Water Front\nTRAF|Traffic\nFLDW|Flood Way\nPIPE|Pipeline Easement")
INFLUENCE = Pool([("", ""), *_INFLUENCES], [86, 3, 4, 2, 2, 2, 1])
RELATIONSHIPS = Pool(
    _records(
        "CM|Common Area\nHS|Homestead of a Larger Tract\nIN|Undivided Interest\nSP|Split from this Account\nUD|Utility District Agreement"
    )
)
PERMIT_STATUS = Pool(_records("C|Complete\nO|Open\nP|Partial\nN|No Change"), [70, 15, 8, 7])
PERMITS = Pool(
    _records("""
00001|New Residence
00002|Residential Addition
00003|Pool / Spa
00004|Reroof
00005|Remodel
00006|Commercial New
00007|Commercial Build-Out
00008|Demolition
00009|Fire / Flood Repair
00010|Mechanical
"""),
    [22, 8, 6, 20, 16, 3, 9, 4, 4, 8],
)
SCHOOLS = _records("""
01|Houston ISD
02|Aldine ISD
03|Alief ISD
04|Channelview ISD
05|Crosby ISD
06|Cypress-Fairbanks ISD
07|Dayton ISD
08|Deer Park ISD
09|Galena Park ISD
10|Goose Creek CISD
12|Huffman ISD
14|Humble ISD
15|Katy ISD
16|Klein ISD
17|La Porte ISD
18|North Forest ISD
19|Pasadena ISD
21|Sheldon ISD
22|Spring ISD
23|Spring Branch ISD
24|Tomball ISD
26|Waller ISD
27|Clear Creek ISD
""")
MARKET_AREAS = _records("""
1020|North Houston
2015|Spring Branch
3010|HISD Inside 610 Loop
4001|Central Business District
5001|Central Business District
6002|Inner Loop Southeast
6010|1C Midtown, Riverside Terrace, University Areas
7003|Katy West
7020|Cypress Fairbanks
8030|Aldine
9011|Clear Lake
9015|Pasadena, Deer Park, La Porte
""")
CONCLUSIONS = Pool(_records("AG|Agreed\nBO|Board Order\nNS|No Show\nWD|Withdrawn\nTF|Top Line Offer"), [52, 26, 8, 9, 5])
AGENT_ROLES = _records("AR|Agent of Record\nAP|Agent for Protest Only\nFD|Fiduciary\nLS|Lessee\nMG|Property Manager")
SPECIAL_CODES = _records("A|Agricultural Deferral\nB|Bankruptcy\nL|Litigation\nO|Omitted Property\nR|Roll Back")
HISD_SECTIONS = [(f"HISD SEC {section}", f"{1000 * section}.00 - {1000 * section + 999}.99") for section in range(1, 9)]

PP_CLASSES = _records(
    "L1|Commercial Personal Property\nL2|Industrial Personal Property\nJ3|"
    "Electric Companies\nM1|Mobile Homes\nS|Special Inventory\nX|Exempt"
)
#: Schedule code, description, state class, weight.
SCHEDULES = _records("""
A|Retail Stores|L1|36
B|Offices and Services|L1|34
C|Leased Equipment|L1|9
D|Vehicles|L1|9
E|Minerals|L2|0
F|Manufacturing|L2|6
L|Electrical Transmission|J3|0.6
P|Pipelines|J3|1
S|Dealer Inventory|S|2
X|Exempt Personal Property|X|2.4
""")
SCHEDULE = Pool([row[:3] for row in SCHEDULES], [float(row[3]) for row in SCHEDULES])
SICS = Pool(
    _records("""
1521|General Contractors, Single-Family Houses|Construction
1731|Electrical Work|Construction
3441|Fabricated Structural Metal|Manufacturing
4213|Trucking, Except Local|Transportation
5411|Grocery Stores|Retail Trade
5541|Gasoline Service Stations|Retail Trade
5812|Eating Places|Retail Trade
5912|Drug Stores|Retail Trade
5999|Miscellaneous Retail Stores|Retail Trade
6531|Real Estate Agents and Managers|Real Estate
7231|Beauty Shops|Services
7359|Equipment Rental and Leasing|Services
7538|General Automotive Repair Shops|Services
8011|Offices and Clinics of Medical Doctors|Services
8021|Offices and Clinics of Dentists|Services
8111|Legal Services|Services
8661|Religious Organizations|Services
8742|Management Consulting Services|Services
"""),
)
DEPARTMENTS = Pool(
    _records(
        "F&F|Furniture and Fixtures\nINV|Inventory\nMACH|Machinery and Equipment\nCOMP|Computers\nVEH|Vehicles\nLEAS|Leased Equipment"
    ),
    [34, 30, 14, 12, 7, 3],
)


def code_tables(districts: Records, neighborhoods: Records) -> dict[str, Records]:
    """The records of each code table; ``districts`` (code, name, type) and ``neighborhoods`` (code, description) are the county's own."""
    sorted_districts = [(code, name) for code, name, _ in districts]
    return {
        "desc_r_01_state_class": [row[:3] for row in STATE_CLASSES],
        "desc_r_02_building_type_code": BUILDING_TYPES,
        "desc_r_03_building_style": BUILDING_STYLES,
        "desc_r_04_building_class": BUILDING_CLASSES,
        "desc_r_05_building_data_elements": [*FIXTURES, *ELEMENTS],
        "desc_r_06_structural_element_type": [row[:3] for row in ELEMENT_CODES],
        "desc_r_07_quality_code": QUALITIES,
        "desc_r_08_pgi_category": PGI.records,
        "desc_r_09_subarea_type": SUBAREAS.records,
        "desc_r_10_extra_features": [row[:4] for row in FEATURES],
        "desc_r_11_extra_feature_category": FEATURE_CATEGORIES,
        "desc_r_12_real_jurisdictions": sorted_districts,
        "desc_r_13_real_jurisdiction_type": JURISDICTION_TYPES,
        "desc_r_14_exemption_category": [row[:2] for row in EXEMPTIONS],
        "desc_r_15_land_usecode": LAND_USES,
        "desc_r_16_influence_factors": [(use, code, "01", text) for use, _ in LAND_USES for code, text in _INFLUENCES],
        "desc_r_17_relationship_type": RELATIONSHIPS.records,
        "desc_r_18_permit_status": PERMIT_STATUS.records,
        "desc_r_19_permit_code": PERMITS.records,
        "desc_r_20_school_district": SCHOOLS,
        "desc_r_21_market_area": MARKET_AREAS,
        "desc_r_22_hisd_section": HISD_SECTIONS,
        "desc_r_23_special_codes": SPECIAL_CODES,
        "desc_r_24_agent_roles": AGENT_ROLES,
        "desc_r_25_conclusion_code": CONCLUSIONS.records,
        "desc_r_26_neighborhood_num_adjust": [
            (code, text, use, percent) for code, text in neighborhoods for use, percent in (("A1", "1.00"), ("B2", "0.95"))
        ],
        "desc_t_01_state_class": PP_CLASSES,
        "desc_t_02_schedule_code": [row[:3] for row in SCHEDULES],
        "desc_t_03_sic_code": SICS.records,
        "desc_t_04_department_group": DEPARTMENTS.records,
        "desc_t_05_jurisdictions": sorted_districts,
        "desc_t_06_jurisdiction_type": JURISDICTION_TYPES,
    }
